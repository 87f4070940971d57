"""A cheap look at latents: each place becomes one pixel by a linear map that is fitted to the VAE.

The map is found by least squares from what this very VAE makes of a few smooth random latents, so it holds
for every VAE and no table is needed; every picture that is decoded afterwards makes it better.
"""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from backend import keyed
from backend.families.base import DiffusionModel
from backend.generate import pixels, vae

_PROBES = 6
_SIDE = 8
"""Latent sides of a probe."""
_RIDGE = 1e-3
_made: weakref.WeakKeyDictionary[nn.Module, Preview] = weakref.WeakKeyDictionary()


class Preview:
    """Latents (B, C, h, w) -> small RGB pictures of w x h pixels, for one VAE."""

    def __init__(self, model: DiffusionModel) -> None:
        self._model = weakref.ref(model)
        size = model.latent_channels + 1
        self._squares = torch.eye(size, dtype=torch.float64) * _RIDGE
        self._products = torch.zeros(size, 3, dtype=torch.float64)
        self._map: Tensor | None = None

    @classmethod
    def of(cls, model: DiffusionModel) -> Preview:
        """The one of a model's VAE; it is fitted when it is first used."""
        if model.vae not in _made:
            _made[model.vae] = cls(model)
        return _made[model.vae]

    @property
    def is_fitted(self) -> bool:
        return self._map is not None

    def develop(self, latents: Tensor) -> list[Image.Image]:
        """One small picture for each of B."""
        if self._map is None:
            self._probe()
        assert self._map is not None
        seen = _flat(latents) @ self._map
        colours = seen.view(len(latents), *latents.shape[-2:], 3).permute(0, 3, 1, 2)
        return [pixels.to_image(each) for each in colours]

    def learn(self, latents: Tensor, decoded: Tensor) -> None:
        """Take pixels (B, 3, H, W) that the VAE made of latents into account."""
        known, wanted = _flat(latents), _shrunk(decoded, latents.shape[-2:])
        self._squares += known.T @ known
        self._products += known.T @ wanted
        self._map = torch.linalg.solve(self._squares, self._products)

    def _probe(self) -> None:
        model = self._model()
        assert model is not None, "a preview without its model"
        latents = torch.cat([_probe(model.latent_channels, index) for index in range(_PROBES)])
        for each in latents.split(1):
            self.learn(each, vae.decode(model, each)[0])


def _probe(channels: int, index: int) -> Tensor:
    """Smooth random latents (1, C, 8, 8) of about unit variance, in spots of a half to an eighth of them."""
    generator = keyed.generator(0, "preview", index)
    side = 2 + 3 * (index % 3)
    spots = torch.randn((1, channels, side, side), generator=generator)
    return F.interpolate(spots, (_SIDE, _SIDE), mode="bicubic", align_corners=True)


def _flat(latents: Tensor) -> Tensor:
    """(places, C + 1) float64 on the CPU: values and a one."""
    values = latents.detach().to("cpu", torch.float64).permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64)], dim=1)


def _shrunk(decoded: Tensor, sides: torch.Size) -> Tensor:
    """(places, 3): the mean colour under each place."""
    small = F.adaptive_avg_pool2d(decoded.detach().to("cpu", torch.float64), (sides[0], sides[1]))
    return small.permute(0, 2, 3, 1).flatten(0, 2)
