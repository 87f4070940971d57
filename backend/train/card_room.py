"""The card's memory before a run: what is needed, what is free, who holds the rest, what needs less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from backend.errors import Problem
from backend.settings import Settings
from backend.system import devices
from backend.system.headers import readable_size

_HOLDERS = 3
"""Programs that are named."""
_OTHERS = 0.05
"""Share of a card that others have to hold before they are spoken of: desktops take a little."""

Count = Callable[[Settings], int | None]
"""Bytes that a step takes with settings; None where they cannot be counted."""


@dataclass(frozen=True)
class CardMemory:
    """The card that a run would use. Sizes are in bytes."""

    free: int
    total: int
    holders: tuple[devices.Holder, ...] = ()
    """Other programs on the cards."""
    half: str = "bf16"
    """The half precision that it calculates in."""

    def in_use(self) -> str:
        """Who holds what is not free; '' when it is hardly anything."""
        used, why = self.total - self.free, ""
        if used >= _OTHERS * self.total:
            names = ", ".join(holder.text() for holder in self.holders[:_HOLDERS]) or "other programs"
            why = f"{readable_size(used)} of {readable_size(self.total)} are in use by {names}"
        return why


def card_memory() -> CardMemory | None:
    """The memory of the card that this process uses; None where there is none."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    half = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return CardMemory(free, total, devices.holders(), half)


def shortage(card: CardMemory | None, needed: int | None, settings: Settings, count: Count) -> Problem | None:
    """What to say when ``needed`` bytes are more than a card has free; None when they fit or nobody knows."""
    if card is None or needed is None or needed <= card.free:
        return None
    return Problem(
        f"a step needs about {readable_size(needed)} of GPU memory; {readable_size(card.free)} are free",
        why=card.in_use(),
        next=_advice(card, settings, count),
        key="gradient_checkpointing",
    )


def _advice(card: CardMemory, settings: Settings, count: Count) -> str:
    """The first few switches that make it fit, with what is needed then."""
    names: list[str] = []
    least: int | None = None
    for name, change in _savings(settings, card.half):
        settings = settings.replace(**change)
        names.append(name)
        least = count(settings)
        if least is not None and least <= card.free:
            break
    switches = " and ".join(names)
    if least is None:
        advice = "end other programs that use the card, or choose a smaller resolution or network_dim"
    elif least <= card.free:
        advice = f"turn on {switches}: about {readable_size(least)}"
    else:
        advice = (
            f"even with {switches} about {readable_size(least)} are needed: end other programs "
            "that use the card, or choose a smaller resolution or network_dim"
        )
    return advice


def _savings(settings: Settings, half: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What can still be switched to need less, what costs the result nothing first."""
    if not settings.caching.cache_latents and not _changing_pictures(settings):
        yield "cache_latents", {"cache_latents": True}
    if not settings.precision.gradient_checkpointing:
        yield "gradient_checkpointing", {"gradient_checkpointing": True}
    if settings.precision.mixed_precision == "no":
        yield f"mixed_precision {half}", {"mixed_precision": half}
    if settings.dataset.train_batch_size > 1 and not settings.dataset.dataset_config:
        yield "train_batch_size 1", {"train_batch_size": 1}


def _changing_pictures(settings: Settings) -> bool:
    """Whether pictures differ from visit to visit, so that they cannot be encoded beforehand."""
    data = settings.dataset
    return bool(data.color_aug or data.random_crop or data.face_crop_aug_range or data.dataset_config)
