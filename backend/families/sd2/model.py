"""Stable Diffusion 2.x as the rest of the program uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from backend.families.base import Conditioning, Prediction, Sizes, Source, TokenIds
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.latent import LatentDiffusion, device_of, joined_chunks
from backend.families.parts.layout import Layout
from backend.families.parts.loading import Loaded, Rule
from backend.families.sd2.layout import LAYOUT, PREFIX, RULE, unused_layer

TEXT = "te"
"""The text encoder's key in ``text_encoders``, ``TokenIds`` and learning-rate parts."""

V_RESOLUTION = 768
"""Pixels of a side of the models that predict v."""

LOGIT_SCALE = math.log(100.0)
"""What CLIP's training ends at; part of the layout, of no use for pictures."""


class StableDiffusion2(LatentDiffusion):
    """SD 2.x: OpenCLIP-H without its last layer, a U-Net with heads of 64 numbers, a 4-channel VAE."""

    family: ClassVar[str] = "sd2"
    default_resolution: int = 512
    layout: ClassVar[Layout] = LAYOUT
    rule: ClassVar[Rule] = RULE
    text_parts: ClassVar[Mapping[str, str]] = {TEXT: "text_encoder"}
    padding: ClassVar[Mapping[str, int | None]] = {TEXT: 0}

    def __init__(self, loaded: Loaded, prediction: Prediction, source: Source) -> None:
        super().__init__(loaded, prediction, source)
        self.says(prediction)

    def says(self, prediction: Prediction) -> None:
        """Take the model to predict this."""
        self.prediction = prediction
        self.default_resolution = V_RESOLUTION if prediction == "v" else 512

    @property
    def text_encoder(self) -> ClipTextModel:
        return self.text(TEXT)

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """``hidden`` (B, chunks x 75 + 2, D): the states after layer ``-clip_skip`` of those in use
        (the file's last one is not) and the final norm. Several chunks are encoded one by one."""
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

    def required_extras(self) -> dict[str, Tensor]:
        """The layer and the projection that files have beside the encoder. Diffusers folders lack
        them; nothing that draws pictures uses them, so the layer is a copy of the one before."""
        state = {name: tensor for name, tensor in self._state().items() if name.startswith("text_encoder.")}
        shape = self.text_encoder.shape
        pieces = self.layout.original(list(state))
        extras = {
            name: torch.cat([state[piece] for piece in pieces[like]])
            for name, like in unused_layer(shape.layers).items()
        }
        some = next(iter(state.values()))
        extras[f"{PREFIX}text_projection"] = torch.eye(shape.width, dtype=some.dtype)
        extras[f"{PREFIX}logit_scale"] = torch.tensor(LOGIT_SCALE, dtype=some.dtype)
        return extras
