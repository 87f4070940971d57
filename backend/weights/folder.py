"""Writing a model as a diffusers folder: a folder for each part, with its configuration.

What U-Net models (SD 1.x, 2.x, SDXL) put into one stands in ``folder_latent``, SD 3's in ``folder_sd3``.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.families.parts.latent import LatentDiffusion
from backend.weights import folder_latent
from backend.weights.folder_parts import Contents, write_json
from backend.weights.reading import Rows
from backend.weights.streaming import Planned, Progress, silent, write_planned

INDEX = "model_index.json"
"""The file that makes a folder a diffusers folder."""
_FOLDERS = (
    *("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "scheduler"),
    *("tokenizer", "tokenizer_2", "tokenizer_3"),
)
_NAMES = (
    *("config.json", "scheduler_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *(
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "model*.safetensors",
        "diffusion_pytorch_model*",
        "pytorch_model*.bin",
    ),
)


def write_folder(
    model: DiffusionModel,
    path: Path,
    *,
    variant: str | None = None,
    reference: Path | None = None,
    progress: Progress = silent,
    dtype: torch.dtype | None = None,
    kept: Collection[str] = (),
    pickled: bool = False,
) -> list[str]:
    """Write ``model`` as a diffusers folder; it gets its name when all files are there.

    Args:
        variant: stands in the files' names (``fp16``).
        reference: a diffusers folder whose scheduler and tokenizers are taken.
        dtype: precision of the files; None: as in memory, and as in the source for kept parts.
        kept: parts whose numbers are the source's own, as for ``DiffusionModel.entries``.
        pickled: weights in ``.bin`` files, as old programs read them.

    Returns:
        The names of the files, relative to the folder.

    Raises:
        InputError: there is something under ``path``, or ``reference`` is no diffusers folder.
        RunFault, EnvironmentFault: as for any file.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already", next="choose another name for the folder")
    if reference is not None and not (reference / "scheduler").is_dir():
        raise InputError(
            f"{reference} is no diffusers folder", next="give --reference_model a folder with scheduler"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        new.mkdir()
        contents = _contents(model, kept)
        _write_parts(contents, new, _Files(variant, dtype, kept, pickled), progress)
        _write_rest(contents, new, reference)
        if path.is_dir():
            path.rmdir()
        new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@dataclass(frozen=True)
class _Files:
    """What the files of the parts are like."""

    variant: str | None
    dtype: torch.dtype | None
    kept: Collection[str]
    pickled: bool

    def name(self, text: bool) -> str:
        """Of a part's weights, by what diffusers and transformers look for."""
        stem = "model" if text else "diffusion_pytorch_model"
        if self.pickled and text:
            stem = "pytorch_model"
        middle = f".{self.variant}" if self.variant else ""
        return f"{stem}{middle}.{'bin' if self.pickled else 'safetensors'}"


def remove_folder(path: Path) -> None:
    """Remove what :func:`write_folder` wrote under ``path``; what else lies there stays. Raises OSError."""
    (path / INDEX).unlink(missing_ok=True)
    for folder in (path / name for name in _FOLDERS):
        for name in _NAMES:
            for file in folder.glob(name):
                file.unlink()
        with contextlib.suppress(OSError):  # it is not empty, or not there
            folder.rmdir()
    with contextlib.suppress(OSError):
        path.rmdir()


def _contents(model: DiffusionModel, kept: Collection[str]) -> Contents:
    if isinstance(model, LatentDiffusion):
        return folder_latent.contents(model, kept)
    from backend.families.sd3.model import StableDiffusion3
    from backend.weights import folder_sd3

    assert isinstance(model, StableDiffusion3), f"no diffusers folder is known of {model.family}"
    return folder_sd3.contents(model, kept)


def _write_parts(contents: Contents, folder: Path, files: _Files, progress: Progress) -> None:
    for part, component in contents.parts.items():
        planned = [_planned(name, tensor, files.dtype) for name, tensor in component.tensors.items()]
        write_planned(folder / part / files.name(component.text), planned, {"format": "pt"}, progress)
        write_json(folder / part / "config.json", component.config)


def _planned(name: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> Planned:
    def make(rows: Rows | None) -> torch.Tensor:
        return tensor if rows is None else tensor[rows[0] : rows[1]]

    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return Planned(name, tuple(tensor.shape), target, make)


def _write_rest(contents: Contents, folder: Path, reference: Path | None) -> None:
    copied: set[str] = set()
    for name in ("scheduler", *contents.tokenizers):
        if reference is not None and (reference / name).is_dir():
            shutil.copytree(reference / name, folder / name)
            copied.add(name)
    if "scheduler" not in copied:
        write_json(folder / "scheduler" / "scheduler_config.json", contents.scheduler)
    for name, write in contents.tokenizers.items():
        if name not in copied:
            write(folder / name)
    write_json(folder / INDEX, contents.index)
