"""Families of models: which there are, and loading by what the file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from backend.system.identify import require_base

if TYPE_CHECKING:
    import torch

    from backend.families.base import DiffusionModel


@dataclass(frozen=True)
class Family:
    """One line of models."""

    name: str
    title: str
    default_resolution: int
    """Pixels of a side."""
    package: str
    """Has ``load(path, *, dtype, device, vae, v_prediction)``; imported when it is needed."""


FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (Family("sd1", "SD 1.x", 512, "backend.families.sd1"),)
}


def load(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    vae: Path | str | None = None,
    v_prediction: bool = False,
) -> DiffusionModel:
    """Load a base model of any family (``dtype`` None: float32).

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.
        v_prediction: the model predicts v, whatever the file says.

    Raises:
        InputError: the file is no base model of a known family, incomplete, damaged, or has
            non-finite weights; the message says which.
    """
    import torch

    found = require_base(path, tuple(FAMILIES))
    package = import_module(FAMILIES[found.family].package)
    return package.load(
        Path(path),
        dtype=dtype or torch.float32,
        device=device,
        vae=Path(vae) if vae else None,
        v_prediction=v_prediction,
    )
