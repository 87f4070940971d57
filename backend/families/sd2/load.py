"""Loading SD 2.x, and finding out what a file predicts that does not say."""

from __future__ import annotations

from pathlib import Path

import torch

from backend.families.base import Source
from backend.families.parts.loading import Shapes, hollow_parts, load_parts
from backend.families.sd2.layout import FULL_TEXT, FULL_UNET, FULL_VAE, LAYOUT, RULE
from backend.families.sd2.model import TEXT, StableDiffusion2
from backend.system.identify import require_base


def hollow(variant: str = "") -> StableDiffusion2:
    """The published model without weights: modules have shapes and no memory."""
    assert not variant, f"SD 2.x has no variant {variant}"
    shapes = Shapes(FULL_UNET, {"text_encoder": FULL_TEXT}, FULL_VAE)
    return StableDiffusion2(hollow_parts(shapes), "v", Source(Path("sd21")))


def load(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: Path | None = None,
    v_prediction: bool | None = None,
) -> StableDiffusion2:
    """Load a single file (.safetensors, .ckpt) or diffusers folder.

    Denoiser and text encoder go to ``device``, the VAE stays on the CPU. When neither the file nor a
    ``.yaml`` beside it tells what it predicts, the model is tried; ``notes`` says so. Files that
    say that their schedule ends without any signal are taken at their word.

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.
        v_prediction: whether the model predicts v, whatever the file says; None: as the file says.

    Raises:
        InputError: not an SD 2.x base model, or what :func:`load_parts` raises.
    """
    found = require_base(path, ("sd2",))
    loaded = load_parts(path, dtype, vae, LAYOUT, RULE)
    said = found.prediction if v_prediction is None else ("v" if v_prediction else "epsilon")
    model = StableDiffusion2(loaded, said or "epsilon", Source(path, loaded.weights.metadata))
    model.zero_terminal_snr = "zero_terminal_snr" in found.details
    if torch.device(device).type != "cpu":
        model.to(device)
    if said is None and not next(model.denoiser.parameters()).is_meta:  # an outline cannot be tried
        model.says("v" if seems_to_predict_v(model) else "epsilon")
        kind = "v, as the 768 px models do" if model.prediction == "v" else "noise, as the 512 px models do"
        text = f"{path.name} does not say what it predicts; a trial of it says {kind}"
        model.notes = (f"{text}. Set prediction_type if that is wrong",)
    return model


@torch.no_grad()
def seems_to_predict_v(model: StableDiffusion2) -> bool:
    """Try the U-Net on an even grey at the last timestep.

    There nearly all is noise: a model of noise gives its input back. To a model of v so even an input
    is a bright picture, and its output (v is about minus the picture) is far below the input.
    """
    device = next(model.denoiser.parameters()).device
    tokens = {TEXT: model.tokenize([""])[TEXT].to(device)}
    grey = torch.full((1, model.latent_channels, 8, 8), 0.5, device=device)
    output = model.predict(grey, torch.tensor([999], device=device), model.encode_text(tokens))
    return bool((output.float() - grey).mean() < -1)
