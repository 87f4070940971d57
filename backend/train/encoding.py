"""Pictures through the VAE, in full precision where half of it does not hold them."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.families.base import DiffusionModel
from backend.jobs.events import Sink


def encode_pictures(model: DiffusionModel, pixels: Tensor, noise: Tensor, events: Sink) -> Tensor:
    """Scaled latents (B, C, h, w) float32 of ``pixels`` (B, 3, H, W), without a gradient.

    Some VAEs overflow in half precision. The first picture that shows it puts the VAE into full
    precision for the rest of the run, which is said once; no value is ever replaced.
    """
    with torch.no_grad():
        latents = model.encode_images(pixels, noise)
        if next(model.vae.parameters()).dtype == torch.float32 or bool(latents.isfinite().all()):
            return latents
        events.emit(
            "note",
            text="the VAE overflows in half precision, so it goes on in full precision, as with no_half_vae",
        )
        model.vae.to(torch.float32)
        return model.encode_images(pixels, noise)
