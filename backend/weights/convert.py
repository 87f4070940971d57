"""Base models from one kind of file to another: .ckpt, .safetensors, diffusers folder; other precision,
another VAE inside, without what training left behind.

A file becomes a file tensor by tensor. A folder, or another VAE, goes through the model as it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from backend import families
from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.system.identify import identify
from backend.weights import metadata as meta
from backend.weights.checkpoint import open_checkpoint, yaml_note
from backend.weights.folder import write_folder
from backend.weights.precision import dtype_named
from backend.weights.reading import Stored, open_file
from backend.weights.report import SUFFIXES, Dropped, Part, Report, check_output
from backend.weights.streaming import Progress, copied, silent, write_planned

LEFT_BY_TRAINERS = ("model_ema.", "optimizer_states.", "callbacks.", "lr_schedulers.", "pytorch-lightning_")
"""What trainers leave in a checkpoint beside the model."""


@dataclass(frozen=True)
class Convert:
    """What to make of what."""

    model_to_load: Path
    model_to_save: Path
    """A name with an ending is a file, one without a diffusers folder."""
    precision: str | None = "float"
    """None: as stored."""
    vae: Path | None = None
    """A VAE that takes the place of the model's own."""
    prune_ema: bool = False
    """Leave out EMA copies and what a trainer left."""
    metadata: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    """Further metadata."""
    epoch: int = 0
    global_step: int = 0
    """Written into a .ckpt, beside the weights."""
    variant: str | None = None
    reference_model: Path | None = None
    overwrite: bool = False


def run(job: Convert, progress: Progress = silent) -> Report:
    """Convert and write.

    Raises:
        InputError: no base model, an output that may not be written, or a layout that is not written here.
    """
    found = identify(job.model_to_load)
    report = Report("convert_diffusers20_original_sd", job.model_to_save)
    report.facts["model"] = found.title
    if job.model_to_save.suffix.lower() in SUFFIXES:
        output = check_output(job.model_to_save, [job.model_to_load], job.overwrite, "model_to_save")
        _refuse_folder_options(job)
        if job.model_to_load.is_dir() or job.vae is not None:
            _through_model(job, output, report, progress)
        else:
            _streamed(job, output, report, progress)
        report.notes += yaml_note(found.family, found.prediction == "v", output)
        return report
    _refuse_file_options(job)
    model = _loaded(job)
    names = write_folder(
        model, job.model_to_save, variant=job.variant, reference=job.reference_model, progress=progress
    )
    report.kept += [Part(name) for name in names]
    return report


def _refuse_folder_options(job: Convert) -> None:
    for name in ("variant", "reference_model"):
        if getattr(job, name) is not None:
            raise InputError(f"--{name} is for writing a diffusers folder", key=name)
    if job.model_to_save.suffix == ".safetensors" and (job.epoch or job.global_step):
        raise InputError("--epoch and --global_step are for .ckpt files", key="epoch")


def _refuse_file_options(job: Convert) -> None:
    for name in ("epoch", "global_step", "metadata"):
        if getattr(job, name):
            raise InputError(f"--{name} is for writing a file, not a diffusers folder", key=name)


def _loaded(job: Convert) -> DiffusionModel:
    dtype = dtype_named(job.precision) or _stored_dtype(job.model_to_load)
    return families.load(job.model_to_load, dtype=dtype, vae=job.vae)


def _stored_dtype(path: Path) -> torch.dtype:
    known = {"F16": torch.float16, "BF16": torch.bfloat16}
    return known.get(identify(path).dtype, torch.float32)


def _through_model(job: Convert, output: Path, report: Report, progress: Progress) -> None:
    """From a folder, or with another VAE: the loaded model writes the original layout."""
    model = _loaded(job)
    metadata = {**_recipe(job), **job.metadata}
    staged = output.with_name(f".{output.stem}.staged.safetensors")
    try:
        model.save(staged, dtype_named(job.precision), metadata)
        file = open_file(staged)
        kept = {name: stored for name, stored in file.tensors.items() if not _left(job, name)}
        _write(job, output, kept, file.metadata, progress)
    finally:
        staged.unlink(missing_ok=True)
    report.kept += [Part(name) for name in kept]


def _streamed(job: Convert, output: Path, report: Report, progress: Progress) -> None:
    checkpoint = open_checkpoint(job.model_to_load)
    kept: dict[str, Stored] = {}
    for name, stored in checkpoint.tensors.items():
        if _left(job, name):
            report.dropped.append(Dropped(name, "no part of the model"))
        else:
            kept[name] = stored
            report.kept.append(Part(name))
    metadata = {k: v for k, v in checkpoint.metadata.items() if not k.startswith("modelspec.hash")}
    _write(job, output, kept, {**metadata, **_recipe(job), **job.metadata}, progress)


def _left(job: Convert, name: str) -> bool:
    return job.prune_ema and name.startswith(LEFT_BY_TRAINERS)


def _write(
    job: Convert, output: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str], progress: Progress
) -> None:
    dtype = dtype_named(job.precision)
    planned = [copied(stored, dtype) for stored in tensors.values()]
    counts = {"epoch": job.epoch, "global_step": job.global_step}
    write_planned(output, planned, metadata, progress, counts)


def _recipe(job: Convert) -> dict[str, str]:
    options = {
        "precision": job.precision,
        "vae": job.vae.name if job.vae else None,
        "prune_ema": job.prune_ema,
    }
    return meta.recipe("convert_diffusers20_original_sd", [(job.model_to_load, {})], options)


def read_metadata(text: str | None) -> dict[str, str]:
    """``--metadata``: a JSON object of texts.

    Raises:
        InputError: it is something else.
    """
    if not text:
        return {}
    try:
        found = json.loads(text)
        assert isinstance(found, dict)
    except (ValueError, AssertionError):
        raise InputError(
            "--metadata is no JSON object", next='write {"modelspec.title": "My model"}', key="metadata"
        ) from None
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
