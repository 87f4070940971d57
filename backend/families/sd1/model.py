"""Stable Diffusion 1.x as the rest of the program uses it."""

from __future__ import annotations

from typing import ClassVar

from backend.families.base import Prediction, Source
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.layout import Layout
from backend.families.parts.loading import Loaded, Rule
from backend.families.parts.one_encoder import OneEncoderDiffusion
from backend.families.parts.unet import UNet
from backend.families.parts.vae import Vae
from backend.families.parts.weights import Weights
from backend.families.sd1.keys import LAYOUT

RULE = Rule({"text_encoder": "quick_gelu"}, heads=8)


class StableDiffusion1(OneEncoderDiffusion):
    """SD 1.x: one CLIP-L text encoder, a U-Net with 8 heads, a 4-channel VAE."""

    family: ClassVar[str] = "sd1"
    default_resolution: int = 512
    layout: ClassVar[Layout] = LAYOUT
    rule: ClassVar[Rule] = RULE

    def __init__(
        self,
        denoiser: UNet,
        text_encoder: ClipTextModel,
        vae: Vae,
        prediction: Prediction,
        source: Source,
        weights: Weights,
    ) -> None:
        loaded = Loaded(denoiser, {"text_encoder": text_encoder}, vae, weights)
        super().__init__(loaded, prediction, source)
