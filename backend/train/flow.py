"""Rectified flow (Liu et al. 2022, Lipman et al. 2022) as Stable Diffusion 3 is trained (Esser et al. 2024).

A picture at timestep t in 0..1000 is ``x_s = (1 - s) x_0 + s e`` with s = t / 1000; the transformer
says the velocity ``e - x_0``. The loss is that of the velocity, as in the papers, weighed for each
picture by itself. sd-scripts compares clean pictures instead, which is the same error times s^2:
that is the scheme ``x0`` here. Timesteps are float32 all the way.

B pictures, C channels, h and w latent sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from backend import keyed
from backend.train.objectives import Distance, Objective, masked_mean

if TYPE_CHECKING:
    from backend.families.base import DiffusionModel
    from backend.settings import Settings

Scheme = Literal["uniform", "none", "sigma_sqrt", "logit_normal", "mode", "cosmap", "x0"]
STEPS = 1000


@dataclass(frozen=True)
class FlowTimes:
    """Which noise levels are trained how often."""

    scheme: Scheme = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    shift: float = 1.0

    @classmethod
    def of(cls, settings: Settings) -> FlowTimes:
        """What the settings ask for."""
        own = settings.sd3
        return cls(own.weighting_scheme, own.logit_mean, own.logit_std, own.mode_scale, own.training_shift)

    def draw(self, seed: int, keys: Sequence[tuple[str, int]], low: int, high: int) -> Tensor:
        """Timesteps (B,) float32 of pictures at their visits, from ``low`` to ``high``."""
        normal = self.scheme == "logit_normal"
        draws = torch.stack(
            [
                (torch.randn if normal else torch.rand)((), generator=keyed.generator(seed, "timestep", *key))
                for key in keys
            ]
        )
        return shifted(self.shares(draws), self.shift) * (high - low) + low

    def shares(self, draws: Tensor) -> Tensor:
        """Noise levels 0..1 of standard normal draws (``logit_normal``) or uniform ones (others).

        Densities of Esser et al. 2024, section 3.1: logit-normal, and ``mode`` with heavy tails.
        """
        if self.scheme == "logit_normal":
            return torch.sigmoid(draws * self.logit_std + self.logit_mean)
        if self.scheme == "mode":
            bend = torch.cos(math.pi / 2 * draws).square() - 1 + draws
            return 1 - draws - self.mode_scale * bend
        return draws


def shifted(shares: Tensor, shift: float) -> Tensor:
    """Noise levels for larger pictures, s' = shift s / (1 + (shift - 1) s) (Esser et al. 2024, eq. 23)."""
    return shares * shift / (1 + (shift - 1) * shares)


def velocity_weight(scheme: Scheme, sigmas: Tensor) -> Tensor:
    """What the velocity's error counts at noise levels (B,) in 0..1.

    ``cosmap``: 2 / (pi (1 - 2 s + 2 s^2)). ``x0``: s^2, the error of the clean picture.
    ``sigma_sqrt`` weighs that one by 1 / s^2, which is the velocity's own error, at s = 0 too.
    """
    if scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas.square()))
    return sigmas.square() if scheme == "x0" else torch.ones_like(sigmas)


@dataclass(frozen=True)
class FlowDistance(Distance):
    """As :class:`Distance`; the noise level is the timestep itself."""

    def bound(self, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
        """As for diffusion with sqrt((1 - a) / a) = s / (1 - s): (1 - c) (1 - s)^2 + c for ``snr``."""
        sigmas = timesteps.float() / STEPS
        if self.huber_schedule == "constant":
            bound = torch.full_like(sigmas, self.huber_c)
        elif self.huber_schedule == "exponential":
            bound = torch.exp(math.log(self.huber_c) * sigmas)
        else:
            bound = (1 - self.huber_c) * (1 - sigmas).square() + self.huber_c
        return bound * self.huber_scale


@dataclass(frozen=True)
class FlowObjective:
    """The velocity of a flow, with its loss weights."""

    scheme: Scheme = "uniform"
    distance: FlowDistance = FlowDistance()
    masked_loss_normalize: bool = False

    @classmethod
    def of(cls, settings: Settings) -> FlowObjective:
        """What the settings ask for."""
        loss = settings.loss
        distance = FlowDistance(loss.loss_type, loss.huber_schedule, loss.huber_c, loss.huber_scale)
        return cls(settings.sd3.weighting_scheme, distance, loss.masked_loss_normalize)

    def to(self, device: torch.device) -> FlowObjective:
        """Itself: it has no tables."""
        return self

    @property
    def timestep_count(self) -> int:
        return STEPS

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents at their timesteps, (B, C, h, w) float32."""
        sigmas = (timesteps.float() / STEPS).view(-1, 1, 1, 1)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the transformer should say: the way from the picture to the noise."""
        return noise - latents

    def losses(
        self,
        prediction: Tensor,
        target: Tensor,
        timesteps: Tensor,
        weights: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """Loss of each picture, (B,) float32: as :meth:`Objective.losses`."""
        error = self.distance(prediction, target, timesteps, timesteps)
        loss = masked_mean(error, masks, self.masked_loss_normalize)
        if weights is not None:
            loss = loss * weights
        return loss * self.timestep_weights(timesteps)

    def timestep_weights(self, timesteps: Tensor) -> Tensor:
        """What the loss of each picture is multiplied by for its noise level, (B,)."""
        return velocity_weight(self.scheme, timesteps.float() / STEPS)


def objective_of(settings: Settings, model: DiffusionModel) -> Objective | FlowObjective:
    """What a model is asked to predict, with the weights that the settings ask for."""
    if model.prediction == "flow":
        return FlowObjective.of(settings)
    return Objective.of(settings.loss, model.alphas_cumprod(), model.prediction == "v")


def flow_times(settings: Settings, model: DiffusionModel) -> FlowTimes | None:
    """How the noise levels of a flow are drawn; None for models of diffusion."""
    return FlowTimes.of(settings) if model.prediction == "flow" else None
