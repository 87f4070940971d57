"""What the denoiser is asked to predict, and how much each error counts.

Everything here is a pure function of tensors: no random draws, no host synchronisation. B pictures,
C channels, h and w latent sides; timesteps (B,) int64 index tables of length T = 1000.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """min(SNR, gamma) / SNR for noise prediction, / (SNR + 1) for v (Hang et al. 2023)."""
    clipped = snr.clamp(max=gamma)
    return clipped / (snr + 1.0) if v_prediction else clipped / snr


def mask_to_latents(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, 1, H, W) averaged over the area of each latent: (B, 1, h, w)."""
    return F.interpolate(masks, size=size, mode="area")


@dataclass(frozen=True)
class Objective:
    """A diffusion objective: noise or v prediction with its loss weights."""

    alphas_cumprod: Tensor
    v_prediction: bool = False
    min_snr_gamma: float | None = None

    def to(self, device: torch.device) -> Objective:
        return Objective(self.alphas_cumprod.to(device), self.v_prediction, self.min_snr_gamma)

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

        Squared error, times mask (area-averaged to latents), mean over all positions, times the
        picture's weight, times min-SNR. The mean counts masked positions too, as sd-scripts does.
        """
        error = (prediction.float() - target.float()).square()
        if masks is not None:
            error = error * mask_to_latents(masks, (error.shape[-2], error.shape[-1]))
        loss = error.mean(dim=(1, 2, 3))
        if weights is not None:
            loss = loss * weights
        if self.min_snr_gamma is not None:
            snr = signal_to_noise(self.alphas_cumprod)[timesteps]
            loss = loss * min_snr_weight(snr, self.min_snr_gamma, self.v_prediction)
        return loss
