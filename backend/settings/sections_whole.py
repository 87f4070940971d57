"""Options of training the model itself: DreamBooth and fine-tuning."""

from __future__ import annotations

from backend.settings.methods import WHOLE
from backend.settings.option import Section, option

_DREAMBOOTH = ("dreambooth",)
_FINETUNE = ("finetune",)


class WholeSettings(Section):
    """What of the model is trained, when it is the model itself (DreamBooth, fine-tuning)."""

    title = "Whole model"
    on_resume = "impossible"
    methods = WHOLE

    train_text_encoder: bool = option(False, "Train the text encoder", "Off: the U-Net or transformer alone learns. DreamBooth trains both.", methods=_FINETUNE)
    stop_text_encoder_training: int | None = option(None, "Train text encoder for", "Steps after which the text encoder stays as it is; 0 or -1: it is never trained. To the end when empty.", ge=-1, le=100_000_000, unit="steps", methods=_DREAMBOOTH, resume="changes")
