"""Learning rates of the parts of a model, as the settings give them."""

from __future__ import annotations

from backend.settings import Settings


def text_rates(settings: Settings, text_parts: list[str]) -> dict[str, float]:
    """Text encoder -> its own rate (``te2``: text_encoder_lr2), that of all, or the learning rate."""
    optimizer = settings.optimizer
    common = optimizer.learning_rate if optimizer.text_encoder_lr is None else optimizer.text_encoder_lr
    values = settings.flat()
    own = {part: values.get(f"text_encoder_lr{part.removeprefix('te')}") for part in text_parts}
    return {part: common if rate is None else rate for part, rate in own.items()}
