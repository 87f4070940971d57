"""What the denoiser is asked to predict, and how much each error counts.

Everything here is a pure function of tensors: no random draws, no host synchronisation. B pictures,
C channels, h and w latent sides; timesteps (B,) int64 index tables of length T = 1000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.families.parts.schedule import zero_terminal

if TYPE_CHECKING:
    from backend.settings.sections import LossSettings

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["snr", "exponential", "constant"]


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """SNR of each timestep, a / (1 - a), (T,). Infinite where a is 1, zero where a is 0."""
    return alphas_cumprod / (1.0 - alphas_cumprod)


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) e (Ho et al. 2020, eq. 4); ``alphas`` is (B, 1, 1, 1)."""
    return alphas.sqrt() * latents + (1.0 - alphas).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """v = sqrt(a) e - sqrt(1 - a) x_0 (Salimans & Ho 2022, appendix D)."""
    return alphas.sqrt() * noise - (1.0 - alphas).sqrt() * latents


def min_snr_weight(snr: Tensor, gamma: float, v_prediction: bool) -> Tensor:
    """min(SNR, gamma) / SNR for noise prediction, / (SNR + 1) for v (Hang et al. 2023).

    Written so that it is 1, its limit, where the SNR of noise prediction is 0.
    """
    if v_prediction:
        return snr.clamp(max=gamma) / (snr + 1.0)
    return torch.where(snr <= gamma, torch.ones_like(snr), gamma / snr)


def noise_like_weight(snr: Tensor) -> Tensor:
    """S / (S + 1), S = min(SNR, 1000): brings a v loss to the scale of a noise loss."""
    clipped = snr.clamp(max=1000.0)
    return clipped / (clipped + 1.0)


def debiased_weight(snr: Tensor, v_prediction: bool) -> Tensor:
    """1 / sqrt(S) for noise prediction (Yu et al. 2023), 1 / (S + 1) for v; S = min(SNR, 1000)."""
    clipped = snr.clamp(max=1000.0)
    return 1.0 / (clipped + 1.0) if v_prediction else clipped.rsqrt()


def mask_to_latents(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, 1, H, W) averaged over the area of each latent: (B, 1, h, w)."""
    return F.interpolate(masks, size=size, mode="area")


def masked_mean(error: Tensor, masks: Tensor | None, normalize: bool = False) -> Tensor:
    """(B,): the mean of element losses (B, C, h, w) times mask, over all positions.

    With ``normalize`` over the mask; 0 where all of it is black.
    """
    if masks is None:
        return error.mean(dim=(1, 2, 3))
    shares = mask_to_latents(masks, (error.shape[-2], error.shape[-1]))
    loss = (error * shares).mean(dim=(1, 2, 3))
    if normalize:
        loss = loss / shares.mean(dim=(1, 2, 3)).clamp(min=torch.finfo(torch.float32).tiny)
    return loss


@dataclass(frozen=True)
class Distance:
    """How far a prediction is from its target, element by element."""

    kind: LossType = "l2"
    huber_schedule: HuberSchedule = "snr"
    huber_c: float = 0.1
    huber_scale: float = 1.0

    def bound(self, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
        """The pseudo-Huber c of each picture, (B,): below it errors count squared, above linearly.

        ``snr``: with s = sqrt((1 - a) / a), ((1 - c) / (1 + s)^2 + c); ``exponential``: c^(t / T);
        each times ``huber_scale``.
        """
        if self.huber_schedule == "constant":
            bound = torch.full_like(alphas_cumprod[timesteps], self.huber_c)
        elif self.huber_schedule == "exponential":
            rate = -math.log(self.huber_c) / len(alphas_cumprod)
            bound = torch.exp(-rate * timesteps)
        else:
            alphas = alphas_cumprod[timesteps]
            sigmas = ((1.0 - alphas) / alphas).sqrt()
            bound = (1.0 - self.huber_c) / (1.0 + sigmas).square() + self.huber_c
        return bound * self.huber_scale

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
        """Element losses, shaped as ``prediction``, float32. ``alphas`` is the whole table (T,)."""
        error = prediction.float() - target.float()
        if self.kind == "l2":
            return error.square()
        if self.kind == "l1":
            return error.abs()
        c = self.bound(timesteps, alphas).view(-1, 1, 1, 1)
        factor = 2.0 * c if self.kind == "huber" else 2.0
        return factor * ((error.square() + c.square()).sqrt() - c)


@dataclass(frozen=True)
class Objective:
    """A diffusion objective: noise or v prediction with its loss weights."""

    alphas_cumprod: Tensor
    v_prediction: bool = False
    min_snr_gamma: float | None = None
    scale_v_pred_loss_like_noise_pred: bool = False
    v_pred_like_loss: float | None = None
    debiased_estimation_loss: bool = False
    distance: Distance = Distance()
    masked_loss_normalize: bool = False
    """A masked loss is the mean over the mask, not over the whole picture."""

    @classmethod
    def of(cls, loss: LossSettings, alphas_cumprod: Tensor, v_prediction: bool) -> Objective:
        """The objective that the settings ask for, on a model's schedule.

        With ``zero_terminal_snr`` the schedule is changed before any weight is computed from it.
        """
        return cls(
            zero_terminal(alphas_cumprod) if loss.zero_terminal_snr else alphas_cumprod,
            v_prediction,
            loss.min_snr_gamma,
            loss.scale_v_pred_loss_like_noise_pred,
            loss.v_pred_like_loss,
            loss.debiased_estimation_loss,
            Distance(loss.loss_type, loss.huber_schedule, loss.huber_c, loss.huber_scale),
            loss.masked_loss_normalize,
        )

    def to(self, device: torch.device) -> Objective:
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    @property
    def timestep_count(self) -> int:
        return len(self.alphas_cumprod)

    def _alphas(self, timesteps: Tensor) -> Tensor:
        return self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents at their timesteps, (B, C, h, w) float32."""
        return add_noise(latents, noise, self._alphas(timesteps))

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should say: the noise, or v."""
        return velocity(latents, noise, self._alphas(timesteps)) if self.v_prediction else noise

    def losses(
        self,
        prediction: Tensor,
        target: Tensor,
        timesteps: Tensor,
        weights: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """Loss of each picture, (B,) float32.

        Element loss, times mask (area-averaged to latents), mean over all positions, times the
        picture's weight, times the weights of its timestep. The mean counts masked positions too, as
        sd-scripts does, unless ``masked_loss_normalize`` is on.
        """
        error = self.distance(prediction, target, timesteps, self.alphas_cumprod)
        loss = masked_mean(error, masks, self.masked_loss_normalize)
        if weights is not None:
            loss = loss * weights
        return loss * self.timestep_weights(timesteps)

    def timestep_weights(self, timesteps: Tensor) -> Tensor:
        """What the loss of each picture is multiplied by for its noise level, (B,)."""
        snr = signal_to_noise(self.alphas_cumprod)[timesteps]
        weight = torch.ones_like(snr)
        if self.min_snr_gamma is not None:
            weight = weight * min_snr_weight(snr, self.min_snr_gamma, self.v_prediction)
        if self.scale_v_pred_loss_like_noise_pred:
            weight = weight * noise_like_weight(snr)
        if self.v_pred_like_loss is not None:
            weight = weight * (1.0 + self.v_pred_like_loss / noise_like_weight(snr))
        if self.debiased_estimation_loss:
            weight = weight * debiased_weight(snr, self.v_prediction)
        return weight
