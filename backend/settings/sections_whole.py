"""Options of training the model itself: DreamBooth and fine-tuning."""

from __future__ import annotations

from typing import Any

from backend.settings.methods import WHOLE
from backend.settings.option import Section, option

XL_BLOCKS = 23
"""Of SDXL's U-Net: 0 time and size, 1 to 9 down, 10 to 12 middle, 13 to 21 up, 22 the end."""


def read_block_lr(value: Any) -> str | None:
    """One or 23 learning rates, as text with commas between or as a list -> the same as text.

    Raises:
        ValueError: something else.
    """
    if value in (None, ""):
        return None
    text = value if isinstance(value, str) else ",".join(map(str, value))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        rates = [float(part) for part in parts]
    except ValueError:
        rates = []
    if len(rates) not in (1, XL_BLOCKS) or not all(0 <= rate <= 100 for rate in rates):
        raise ValueError(f"expected 1 or {XL_BLOCKS} learning rates of 0 or more, got '{text}'")
    return ",".join(parts)


_DREAMBOOTH = ("dreambooth",)
_FINETUNE = ("finetune",)


class WholeSettings(Section):
    """What of the model is trained, when it is the model itself (DreamBooth, fine-tuning)."""

    title = "Whole model"
    on_resume = "impossible"
    methods = WHOLE

    train_text_encoder: bool = option(False, "Train the text encoder", "Off: the U-Net or transformer alone learns. DreamBooth trains both.", methods=_FINETUNE)
    stop_text_encoder_training: int | None = option(None, "Train text encoder for", "Steps after which the text encoder stays as it is; 0 or -1: it is never trained. To the end when empty.", ge=-1, le=100_000_000, unit="steps", methods=_DREAMBOOTH, resume="changes")
    block_lr: str | None = option(None, "Rates by block", "23 learning rates of SDXL's U-Net with commas between, or one for all: time and size, 9 down, 3 middle, 9 up, the end. A block with 0 stays as it is.", level="expert", methods=_FINETUNE, families=("sdxl",), check=read_block_lr)
    num_last_block_to_freeze: int | None = option(None, "Last blocks that stay", "This many of the last blocks of SD 3's transformer are not trained: less memory.", ge=0, le=64, level="expert", methods=_FINETUNE, families=("sd3",))
    fused_optimizer_groups: int | None = option(None, "Step in groups", "Weights are changed in so many groups while the backward pass still runs, so that gradients are never all in memory; 4 to 10. Any optimizer that looks at weights one by one, without accumulation.", ge=0, le=1000, level="expert", resume="changes",
        note="Gradient clipping looks at each weight alone then, as in sd-scripts.")  # fmt: skip
    blockwise_fused_optimizers: bool = option(False, "Step block by block", "As in groups, with one group for each block of SD 3's transformer.", level="expert", families=("sd3",), resume="changes",
        note="Gradient clipping looks at each weight alone then, as in sd-scripts.")  # fmt: skip
