"""Loading SD 1.x."""

from __future__ import annotations

from pathlib import Path

import torch

from backend.families.base import Source
from backend.families.parts.clip import ClipShape
from backend.families.parts.loading import Shapes, hollow_parts, load_parts, predicted
from backend.families.parts.unet import UNetShape
from backend.families.parts.vae import VaeShape
from backend.families.sd1.keys import LAYOUT
from backend.families.sd1.model import RULE, StableDiffusion1
from backend.system.identify import require_base


def hollow(variant: str = "") -> StableDiffusion1:
    """The published model without weights: modules have shapes and no memory."""
    assert not variant, f"SD 1.x has no variant {variant}"
    loaded = hollow_parts(Shapes(UNetShape(), {"text_encoder": ClipShape()}, VaeShape()))
    text, path = loaded.texts["text_encoder"], Path("sd15")
    return StableDiffusion1(loaded.unet, text, loaded.vae, "epsilon", Source(path), loaded.weights)


def load(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: Path | None = None,
    v_prediction: bool | None = None,
) -> StableDiffusion1:
    """Load a single file (.safetensors, .ckpt) or diffusers folder.

    Denoiser and text encoder go to ``device``, the VAE stays on the CPU. Files that say that their
    schedule ends without any signal are taken at their word.

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.
        v_prediction: whether the model predicts v, whatever the file says; None: as the file says.

    Raises:
        InputError: not an SD 1.x base model, or what :func:`load_parts` raises.
    """
    found = require_base(path, ("sd1",))
    loaded = load_parts(path, dtype, vae, LAYOUT, RULE)
    model = StableDiffusion1(
        loaded.unet,
        loaded.texts["text_encoder"],
        loaded.vae,
        predicted(found, v_prediction),
        Source(path, loaded.weights.metadata),
        loaded.weights,
    )
    model.zero_terminal_snr = "zero_terminal_snr" in found.details
    if torch.device(device).type != "cpu":
        model.to(device)
    return model
