"""Stable Diffusion 1.x as the rest of the program uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from backend.families.base import Conditioning, Prediction, Sizes, Source, TokenIds
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.latent import LatentDiffusion, device_of, joined_chunks
from backend.families.parts.layout import Layout
from backend.families.parts.loading import Loaded, Rule
from backend.families.parts.unet import UNet
from backend.families.parts.vae import Vae
from backend.families.parts.weights import Weights
from backend.families.sd1.keys import LAYOUT

TEXT = "te"
"""The text encoder's key in ``text_encoders``, ``TokenIds`` and learning-rate parts."""

RULE = Rule({"text_encoder": "quick_gelu"}, heads=8)


class StableDiffusion1(LatentDiffusion):
    """SD 1.x: one CLIP-L text encoder, a U-Net with 8 heads, a 4-channel VAE."""

    family: ClassVar[str] = "sd1"
    default_resolution: int = 512
    layout: ClassVar[Layout] = LAYOUT
    rule: ClassVar[Rule] = RULE
    text_parts: ClassVar[Mapping[str, str]] = {TEXT: "text_encoder"}

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

    @property
    def text_encoder(self) -> ClipTextModel:
        return self.text(TEXT)

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """``hidden`` (B, chunks x 75 + 2, D): the states after layer ``-clip_skip`` and the final norm.

        Several chunks are encoded one by one and joined.
        """
        ids = tokens[TEXT].to(device_of(self.text_encoder))
        states = self.text_encoder(ids.flatten(0, 1), clip_skip or 1).unflatten(0, ids.shape[:2])
        return {"hidden": joined_chunks(states)}

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        """The U-Net's output in ``noisy``'s type; ``timesteps`` 0..999. ``sizes`` play no part here."""
        dtype = self.unet.conv_in.weight.dtype
        hidden = conditioning["hidden"].to(noisy.device, dtype)
        return self.denoiser(noisy.to(dtype), timesteps, hidden).to(noisy.dtype)
