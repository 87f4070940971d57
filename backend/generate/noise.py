"""The noise that a picture starts from: of its seed alone, or mixed with that of another seed.

It comes from a generator on the CPU that only one picture uses, so that batch size, position and device
do not change it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.families.base import DiffusionModel
from backend.generate.request import Request

_PARALLEL = 1 - 1e-6


class Noise:
    """The generators of pictures that are drawn together; what is drawn later (by samplers that add
    noise in each step) goes on from the same stream."""

    def __init__(self, model: DiffusionModel, pictures: list[Request], further: int = 0) -> None:
        """``further`` is added to the seeds: a second pass has noise of its own."""
        self._channels = model.latent_channels
        self._pictures = pictures
        self._further = further
        self.generators = [
            torch.Generator().manual_seed(((picture.seed or 0) + further) % 2**63) for picture in pictures
        ]

    def draw(self, sides: tuple[int, int]) -> Tensor:
        """Standard normal noise (B, C, h, w) of latent ``sides``, on the CPU."""
        rows = zip(self._pictures, self.generators, strict=True)
        return torch.cat([self._one(picture, generator, sides) for picture, generator in rows])

    def _one(self, picture: Request, generator: torch.Generator, sides: tuple[int, int]) -> Tensor:
        shape = (1, self._channels, *sides)
        own = torch.randn(shape, generator=generator)
        if picture.variation_seed is None or picture.variation_strength <= 0:
            return own
        seed = (picture.variation_seed + self._further) % 2**63
        other = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return slerp(own, other, min(picture.variation_strength, 1.0))


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """The point at ``share`` (0..1) of the arc between two noises (Shoemake 1985): as long as noise is,
    where a straight line would pass closer to nothing."""
    cosine = torch.nn.functional.cosine_similarity(start.flatten(), end.flatten(), dim=0)
    if abs(float(cosine)) > _PARALLEL:
        return torch.lerp(start, end, share)
    angle = torch.acos(cosine)
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)
