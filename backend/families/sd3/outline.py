"""SD 3 without weights."""

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


def outline(model: str, path: Path) -> StableDiffusion3:
    """``medium``, ``5-medium`` or ``5-large`` with T5, on the meta device; ``path`` stands for its file."""
    parts = skeletons(published(model))
    clip_l, clip_g = (cast(ClipTextModel, parts[name]) for name in ("clip_l", "clip_g"))
    texts = TextParts(clip_l, clip_g, cast(T5Encoder, parts["t5xxl"]))
    denoiser, vae = cast(MMDiT, parts["transformer"]), cast(Vae, parts["vae"])
    return StableDiffusion3(denoiser, texts, vae, Source(path), Weights(path, {}))
