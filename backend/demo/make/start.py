"""Snapshots made of a finished file, so that its model can be trained on where no snapshots are left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backend import families
from backend.demo.make import snapshots, text, unet
from backend.demo.make.shapes import Shapes
from backend.errors import InputError
from backend.families.sd1.model import StableDiffusion1


def take_up(path: Path, work: Path, shapes: Shapes, seed: int) -> int:
    """Leave in ``work`` what the stages up to ``unet`` would have left; returns the U-Net's steps so far.

    The weights are the file's (averaged, half precision); optimizers start anew. Raises
    :class:`InputError` when the file does not say how it was made, or ``work`` has snapshots already.
    """
    if snapshots.load(work, "unet") is not None:
        raise InputError(
            "there are newer snapshots than the file", where=str(work), next="train on from them"
        )
    model = families.load(path)
    made = json.loads(model.source.metadata.get("atelier.made", "{}")).get("stages")
    if not made:
        raise InputError("the file does not say how it was made", where=str(path))
    assert isinstance(model, StableDiffusion1)
    parts = {"unet": model.unet.float(), "te": model.text_encoder.float(), "vae": model.vae.float()}
    vae_steps = {name: spent for name, spent in made.items() if name not in ("text", "unet")}
    frozen = {"vae": parts["vae"].state_dict(), "number": 1, "made": vae_steps}
    snapshots.save(work, "frozen", 1, frozen)
    _save(work, "text", _reader(parts["te"], shapes), made["text"])
    net = unet.fresh(shapes.unet, seed)
    net.load_state_dict(parts["unet"].state_dict())
    _save(work, "unet", net, made["unet"])
    return made["unet"]["steps"]


def _reader(encoder: nn.Module, shapes: Shapes) -> text.Reader:
    """The text encoder with its small vocabulary; the head that told attributes is lost."""
    reader = text.Reader(shapes.text)
    name = "text_model.embeddings.token_embedding.weight"
    state = {key: value.float() for key, value in encoder.state_dict().items()}
    rows = state[name][torch.tensor(text.words().known)]
    state[name] = torch.cat([rows, rows[:1].expand(text.NOISE_ROWS, -1)])
    reader.encoder.load_state_dict(state)
    reader.renew_noise(torch.Generator().manual_seed(0))
    return reader


def _save(work: Path, stage: str, module: nn.Module, spent: dict[str, Any]) -> None:
    average = [p.detach().clone() for p in module.parameters() if p.requires_grad]
    state = {
        "module": module.state_dict(),
        "average": average,
        "step": spent["steps"],
        "spent": spent["minutes"],
    }
    snapshots.save(work, stage, spent["steps"], state)
