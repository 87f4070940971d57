"""Stable Diffusion 2.x as the rest of the program uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from backend.families.base import Prediction, Source
from backend.families.parts.layout import Layout
from backend.families.parts.loading import Loaded, Rule
from backend.families.parts.one_encoder import TEXT, OneEncoderDiffusion
from backend.families.sd2.layout import LAYOUT, PREFIX, RULE, unused_layer

V_RESOLUTION = 768
"""Pixels of a side of the models that predict v."""

LOGIT_SCALE = math.log(100.0)
"""What CLIP's training ends at; part of the layout, of no use for pictures."""


class StableDiffusion2(OneEncoderDiffusion):
    """SD 2.x: OpenCLIP-H without its last layer, a U-Net with heads of 64 numbers, a 4-channel VAE."""

    family: ClassVar[str] = "sd2"
    default_resolution: int = 512
    layout: ClassVar[Layout] = LAYOUT
    rule: ClassVar[Rule] = RULE
    padding: ClassVar[Mapping[str, int | None]] = {TEXT: 0}

    def __init__(self, loaded: Loaded, prediction: Prediction, source: Source) -> None:
        super().__init__(loaded, prediction, source)
        self.says(prediction)

    def says(self, prediction: Prediction) -> None:
        """Take the model to predict this."""
        self.prediction = prediction
        self.default_resolution = V_RESOLUTION if prediction == "v" else 512

    def required_extras(self) -> dict[str, Tensor]:
        """The layer and the projection that files have beside the encoder. Diffusers folders lack
        them; nothing that draws pictures uses them, so the layer is a copy of the one before."""
        state = {name: tensor for name, tensor in self.state().items() if name.startswith("text_encoder.")}
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
