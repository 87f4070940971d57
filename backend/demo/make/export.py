"""The finished parts as one SD 1.x file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from backend.families.base import Source
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.unet import UNet
from backend.families.parts.vae import Vae
from backend.families.parts.weights import Weights
from backend.families.sd1.model import StableDiffusion1

MAX_BYTES = 16_000_000


def assembled(unet: UNet, text: ClipTextModel, vae: Vae) -> StableDiffusion1:
    """The parts as a model of the family, in memory."""
    source = Source(Path("demo"))
    for part in (unet, text, vae):
        part.eval().requires_grad_(False)
    return StableDiffusion1(unet, text, vae, "epsilon", source, Weights(source.path, {}, {}))


def write(model: StableDiffusion1, path: Path, made: Mapping[str, object]) -> int:
    """Write fp16 in the original layout; ``made`` says how it came about. Returns the size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": "Atelier demo world",
        "modelspec.description": "A small SD 1.x trained from nothing on a drawn world of shapes, 128 px",
        "modelspec.resolution": "128x128",
        "modelspec.prediction_type": "epsilon",
        "modelspec.license": "Apache-2.0",
        "atelier.made": json.dumps(made, sort_keys=True),
    }
    model.save(path, torch.float16, metadata)
    return path.stat().st_size
