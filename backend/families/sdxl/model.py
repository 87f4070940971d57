"""Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952) as the rest of the program uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from backend.families.base import Conditioning, Sizes, TokenIds
from backend.families.parts.latent import LatentDiffusion, device_of, joined_chunks
from backend.families.parts.layout import Layout
from backend.families.parts.loading import Rule
from backend.families.parts.names import unet_to_original
from backend.families.parts.unet import timestep_embedding
from backend.families.sdxl.layout import LAYOUT, RULE, SECOND

TEXT, TEXT_2 = "te1", "te2"
"""The text encoders' keys in ``text_encoders``, ``TokenIds`` and learning-rate parts."""

SIZE_WIDTH = 256
"""Sinusoids for each of the six numbers of the size conditioning."""

LOGIT_SCALE = math.log(100.0)
"""What CLIP's training ends at; part of the layout, of no use for pictures."""


class StableDiffusionXL(LatentDiffusion):
    """SDXL base: CLIP-L and OpenCLIP-bigG, a U-Net that is told sizes and pooled text, a 4-channel VAE."""

    family: ClassVar[str] = "sdxl"
    default_resolution: int = 1024
    layout: ClassVar[Layout] = LAYOUT
    rule: ClassVar[Rule] = RULE
    text_parts: ClassVar[Mapping[str, str]] = {TEXT: "text_encoder", TEXT_2: "text_encoder_2"}
    word_names: ClassVar[Mapping[str, str]] = {TEXT: "clip_l", TEXT_2: "clip_g"}
    padding: ClassVar[Mapping[str, int | None]] = {TEXT_2: 0}

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """``hidden`` (B, chunks x 75 + 2, D1 + D2) and ``pooled`` (B, P).

        Both encoders give the states before their last layer, without the final norm, put side by
        side; ``pooled`` is the second one's for the first chunk. ``clip_skip`` plays no part: SDXL
        was made for these states alone.
        """
        first, second = self.text(TEXT), self.text(TEXT_2)
        ids, ids_2 = tokens[TEXT].to(device_of(first)), tokens[TEXT_2].to(device_of(second))
        states = first(ids.flatten(0, 1), 2, norm=False).unflatten(0, ids.shape[:2])
        found = second.encode(ids_2.flatten(0, 1), 2)
        states_2 = found.hidden.unflatten(0, ids_2.shape[:2])
        return {
            "hidden": torch.cat([joined_chunks(states), joined_chunks(states_2)], dim=-1),
            "pooled": found.pooled.unflatten(0, ids_2.shape[:2])[:, 0],
        }

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        """The U-Net's output in ``noisy``'s type; ``timesteps`` 0..999.

        Without ``sizes`` the picture is said to be uncut and of the size that is drawn.
        """
        dtype = self.unet.conv_in.weight.dtype
        hidden = conditioning["hidden"].to(noisy.device, dtype)
        numbers = self._sizes(noisy) if sizes is None else size_numbers(sizes).to(noisy.device)
        sinusoids = timestep_embedding(numbers.flatten(), SIZE_WIDTH).unflatten(0, numbers.shape).flatten(1)
        label = torch.cat([conditioning["pooled"].to(noisy.device, dtype), sinusoids.to(dtype)], dim=1)
        return self.denoiser(noisy.to(dtype), timesteps, hidden, label).to(noisy.dtype)

    def compute_as_sd_scripts(self) -> None:
        """It takes the second encoder's projection for its own transpose, so its pooled text is not
        that of Stability's code, diffusers and the programs that draw pictures."""
        projection = self.text(TEXT_2).text_projection
        projection.weight = torch.nn.Parameter(projection.weight.t().contiguous(), requires_grad=False)

    def _sizes(self, noisy: Tensor) -> Tensor:
        height, width = (side * self.scale_factor for side in noisy.shape[-2:])
        numbers = torch.tensor([height, width, 0, 0, height, width], device=noisy.device)
        return numbers.expand(len(noisy), -1)

    def network_path(self, path: str) -> str:
        """By the original layout's blocks, as networks for SDXL are named everywhere."""
        return self._original_paths[path]

    @cached_property
    def _original_paths(self) -> dict[str, str]:
        names = [name for name in self.unet.state_dict() if name.endswith(".weight")]
        ending = len(".weight")
        return {new[:-ending]: old[:-ending] for new, old in unet_to_original(names).items()}

    def required_extras(self) -> dict[str, Tensor]:
        dtype = self.text(TEXT_2).text_projection.weight.dtype
        return {f"{SECOND}logit_scale": torch.tensor(LOGIT_SCALE, dtype=dtype)}


def size_numbers(sizes: Sizes) -> Tensor:
    """(B, 6): original height and width, top and left of the cut, height and width trained at."""
    return torch.cat([sizes.original, sizes.crop, sizes.target], dim=1)
