"""Published SD 3 models without weights."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from backend.families.base import Source
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.vae import Vae
from backend.families.sd3.layout import published, skeletons
from backend.families.sd3.mmdit import MMDiT
from backend.families.sd3.model import StableDiffusion3, TextParts
from backend.families.sd3.t5 import T5Encoder
from backend.families.sd3.weights import Weights


def hollow(variant: str = "medium") -> StableDiffusion3:
    """``medium``, ``5-medium`` or ``5-large`` without weights: modules have shapes and no memory."""
    parts, path = skeletons(published(variant)), Path(f"sd3-{variant}")
    texts = TextParts(
        cast(ClipTextModel, parts["clip_l"]),
        cast(ClipTextModel, parts["clip_g"]),
        cast(T5Encoder, parts["t5xxl"]),
    )
    denoiser, vae = cast(MMDiT, parts["transformer"]), cast(Vae, parts["vae"])
    return StableDiffusion3(denoiser, texts, vae, Source(path), Weights(path, {}, {}))
