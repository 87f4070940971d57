"""Loading SDXL."""

from __future__ import annotations

from pathlib import Path

import torch

from backend.errors import InputError
from backend.families.base import Source
from backend.families.parts.loading import Shapes, hollow_parts, load_parts, predicted
from backend.families.sdxl.layout import FULL_TEXT, FULL_TEXT_2, FULL_UNET, FULL_VAE, LAYOUT, RULE
from backend.families.sdxl.model import SIZE_WIDTH, TEXT_2, StableDiffusionXL
from backend.system.identify import require_base


def hollow(variant: str = "") -> StableDiffusionXL:
    """The published model without weights: modules have shapes and no memory."""
    assert not variant, f"SDXL has no variant {variant}"
    texts = {"text_encoder": FULL_TEXT, "text_encoder_2": FULL_TEXT_2}
    loaded = hollow_parts(Shapes(FULL_UNET, texts, FULL_VAE))
    return StableDiffusionXL(loaded, "epsilon", Source(Path("sdxl")))


def load(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: Path | None = None,
    v_prediction: bool | None = None,
) -> StableDiffusionXL:
    """Load a single file (.safetensors, .ckpt) or diffusers folder.

    Denoiser and text encoders go to ``device``, the VAE stays on the CPU. Files that say that they
    predict v, or that their schedule ends without any signal, are taken at their word.

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.
        v_prediction: whether the model predicts v, whatever the file says; None: as the file says.

    Raises:
        InputError: not an SDXL base model (the refiner and inpainting models are none), or what
            :func:`load_parts` raises.
    """
    found = require_base(path, ("sdxl",))
    loaded = load_parts(path, dtype, vae, LAYOUT, RULE)
    model = StableDiffusionXL(
        loaded,
        predicted(found, v_prediction),
        Source(path, loaded.weights.metadata),
        zero_terminal_snr="zero_terminal_snr" in found.details,
    )
    _check_label(model)
    if torch.device(device).type != "cpu":
        model.to(device)
    return model


def _check_label(model: StableDiffusionXL) -> None:
    pooled = model.text(TEXT_2).shape.projection or 0
    wanted = pooled + 6 * SIZE_WIDTH
    if model.unet.shape.label_width != wanted:
        raise InputError(
            f"the U-Net is told {model.unet.shape.label_width} numbers beside the text; SDXL's base "
            f"model takes {wanted}",
            where=str(model.source.path),
            next="choose an SDXL base model",
        )
