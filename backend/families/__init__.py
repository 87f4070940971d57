"""Families of models: which there are, and loading by what the file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from backend.system.identify import ModelFile, require_base

if TYPE_CHECKING:
    import torch

    from backend.families.base import DiffusionModel
    from backend.families.options import LoadOptions


@dataclass(frozen=True)
class Family:
    """One line of models."""

    name: str
    title: str
    default_resolution: int
    """Pixels of a side."""
    v_resolution: int | None = field(default=None, kw_only=True)
    """... of models that predict v, where it is another."""
    package: str
    """Has ``load(path, *, dtype, device, vae, v_prediction)``; imported when it is needed."""
    own_options: bool = False
    """Its ``load`` takes ``options`` as well."""
    ignores: frozenset[str] = frozenset()
    """Options that people write for it although they change nothing: that is noted, not refused."""
    own_text_files: tuple[str, ...] = ()
    """Options that name its text encoders' files, where a model may come without them."""
    side_multiple: int = 8
    """Sides of training sizes and buckets are multiples of this many pixels."""


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("sd1", "SD 1.x", 512, "backend.families.sd1"),
        Family("sd2", "SD 2.x", 512, "backend.families.sd2", v_resolution=768),
        Family("sdxl", "SDXL", 1024, "backend.families.sdxl", ignores=frozenset({"clip_skip"})),
        Family(
            "sd3",
            "SD 3.x",
            1024,
            "backend.families.sd3",
            own_options=True,
            own_text_files=("clip_l", "clip_g"),
            side_multiple=16,
        ),
    )
}


PUBLISHED: Mapping[str, tuple[str, str]] = {
    "sd15": ("sd1", ""),
    "sd21": ("sd2", ""),
    "sdxl": ("sdxl", ""),
    "sd3-medium": ("sd3", "medium"),
    "sd35-medium": ("sd3", "5-medium"),
    "sd35-large": ("sd3", "5-large"),
}
"""Models that many have, by the names they are called -> (family, variant)."""


def hollow(name: str) -> DiffusionModel:
    """A published model without weights: modules have names and shapes, and take no memory."""
    family, variant = PUBLISHED[name]
    package = import_module(FAMILIES[family].package)
    return package.hollow(variant) if variant else package.hollow()


def default_resolution(base: ModelFile, v_prediction: bool | None = None) -> int:
    """Pixels of a side that a base model was made for; ``v_prediction``: whether it is said to predict v."""
    family = FAMILIES[base.family]
    predicts_v = base.prediction == "v" if v_prediction is None else v_prediction
    return family.v_resolution or family.default_resolution if predicts_v else family.default_resolution


def load(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    vae: Path | str | None = None,
    v_prediction: bool | None = None,
    options: LoadOptions | None = None,
) -> DiffusionModel:
    """Load a base model of any family (``dtype`` None: float32).

    Args:
        vae: a file or folder whose VAE takes the place of the model's own.
        v_prediction: whether the model predicts v, whatever the file says; None: as the file says.
        options: further files and rules, for the families that have some.

    Raises:
        InputError: the file is no base model of a known family, incomplete, damaged, or has
            non-finite weights; the message says which.
    """
    import torch

    found = require_base(path, tuple(FAMILIES))
    family = FAMILIES[found.family]
    own = {"options": options} if family.own_options else {}
    return import_module(family.package).load(
        Path(path),
        dtype=dtype or torch.float32,
        device=device,
        vae=Path(vae) if vae else None,
        v_prediction=v_prediction,
        **own,
    )
