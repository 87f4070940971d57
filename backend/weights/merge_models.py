"""Checkpoints into one checkpoint: a weighted sum, or the difference of two added to a third.

``ratio_1 W_1 + ratio_2 W_2 + ...``, or with ``add_difference`` ``A + ratio (B - C)``. Weights for blocks
(merge block weighted) take the place of the ratio block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from backend.errors import InputError
from backend.weights import metadata as meta
from backend.weights.blockweights import read_lbws, slot_of
from backend.weights.checkpoint import Checkpoint, open_checkpoint, yaml_note
from backend.weights.precision import device_named, dtype_named, rounded
from backend.weights.reading import Rows, Stored
from backend.weights.report import Dropped, Part, Report, check_output
from backend.weights.streaming import Planned, Progress, copied, silent, write_planned

Mode = Literal["weighted_sum", "add_difference"]
_UNET = "model.diffusion_model."
_VAE = "first_stage_model."


@dataclass(frozen=True)
class MergeModels:
    """Which models, with how much of each."""

    models: Sequence[Path]
    output: Path
    ratios: Sequence[float] = ()
    """One a model; none: equal shares. With ``add_difference`` one for all."""
    mode: Mode = "weighted_sum"
    mbw: str | None = None
    """JSON list of 26 weights: how much of the second model (or of the difference) a block takes."""
    unet_only: bool = False
    """VAE and text encoders are the first model's."""
    precision: str = "float"
    saving_precision: str | None = "float"
    """None: as the first model has them."""
    device: str = "cpu"
    overwrite: bool = False


def run(job: MergeModels, progress: Progress = silent) -> Report:
    """Merge and write, a few rows at a time.

    Raises:
        InputError: models of several families (named), numbers that do not fit.
    """
    output = check_output(job.output, job.models, job.overwrite, "output")
    models = [open_checkpoint(path) for path in job.models]
    _check(job, models)
    device, merging = device_named(job.device), dtype_named(job.precision)
    saving = dtype_named(job.saving_precision)
    blocks = read_lbws([job.mbw], 1, models[0].family) if job.mbw else None
    report = Report("merge_models", output)
    planned: list[Planned] = []
    for name, stored in models[0].tensors.items():
        weights = _weights(job, name, blocks[0] if blocks else None)
        others = (
            None if job.unet_only and not name.startswith(_UNET) else _others(report, models, name, stored)
        )
        if others is None or not stored.is_float:
            planned.append(copied(stored, saving))
            continue
        report.kept.append(Part(name))
        planned.append(_sum([stored, *others], weights, device, merging, saving or stored.dtype))
    _report_foreign(report, models)
    report.notes += yaml_note(models[0].family, models[0].predicts_v, output)
    write_planned(output, planned, _metadata(job, models), progress)
    report.facts = {"model": models[0].facts.title, "copied from the first": len(planned) - len(report.kept)}
    return report


def _check(job: MergeModels, models: Sequence[Checkpoint]) -> None:
    first = models[0] if models else None
    for other in models[1:]:
        assert first is not None
        if other.family != first.family:
            raise InputError(
                f"{first.path.name} is {first.facts.title}, {other.path.name} is {other.facts.title}",
                next="merge models of one family",
                key="models",
            )
        if first.predicts_v != other.predicts_v:
            raise InputError(
                f"one of {first.path.name} and {other.path.name} predicts v, the other noise",
                why="their sum predicts neither",
                key="models",
            )
    difference = job.mode == "add_difference"
    if difference and len(models) != 3:
        raise InputError(f"add_difference takes 3 models (A, B and C), not {len(models)}", key="models")
    if not difference and len(models) < 2:
        raise InputError("merging takes at least 2 models", key="models")
    if job.mbw and not difference and len(models) != 2:
        raise InputError(f"--mbw takes 2 models, not {len(models)}", key="mbw")
    if job.mbw and job.ratios:
        raise InputError("--mbw and --ratios say the same thing twice", next="leave one out", key="mbw")
    wanted = 1 if difference else len(models)
    if job.ratios and len(job.ratios) != wanted:
        raise InputError(f"{len(job.ratios)} ratios; {wanted} are needed", key="ratios")


def _weights(job: MergeModels, name: str, blocks: Sequence[float] | None) -> list[float]:
    """The factor of each model for one tensor."""
    share = blocks[block_slot(name)] if blocks else None
    if job.mode == "add_difference":
        ratio = share if share is not None else (job.ratios[0] if job.ratios else 1.0)
        return [1.0, ratio, -ratio]
    if share is not None:
        return [1 - share, share]
    return list(job.ratios) or [1 / len(job.models)] * len(job.models)


def block_slot(name: str) -> int:
    """The slot of a tensor; text encoders, VAE and what lies outside the blocks are BASE."""
    if not name.startswith(_UNET):
        return 0
    return slot_of("unet_" + name[len(_UNET) :].replace(".", "_"))


def _others(report: Report, models: Sequence[Checkpoint], name: str, stored: Stored) -> list[Stored] | None:
    """The tensor in the other models; None where one of them has it in another shape.

    A model that lacks it counts with the first one's.
    """
    found: list[Stored] = []
    for model in models[1:]:
        other = model.tensors.get(name)
        if other is None:
            report.dropped.append(Dropped(name, f"{model.path.name} lacks it; the first model's is taken"))
        elif [n for n in other.shape if n != 1] != [n for n in stored.shape if n != 1]:
            report.dropped.append(
                Dropped(name, f"{model.path.name} has it in another shape; the first model's is kept")
            )
            return None
        found.append(other or stored)
    return found


def _report_foreign(report: Report, models: Sequence[Checkpoint]) -> None:
    for model in models[1:]:
        extra = [name for name in model.tensors if name not in models[0].tensors]
        report.dropped += [Dropped(name, f"only {model.path.name} has it") for name in extra]


def _sum(
    tensors: Sequence[Stored],
    weights: Sequence[float],
    device: torch.device,
    merging: torch.dtype | None,
    saving: torch.dtype,
) -> Planned:
    first = tensors[0]

    def make(rows: Rows | None) -> Tensor:
        total = first.read(rows).to(device, torch.float32).mul_(weights[0])
        for stored, weight in zip(tensors[1:], weights[1:], strict=True):
            other = stored.read(rows).to(device, torch.float32)
            total.add_(other.reshape(total.shape), alpha=weight)
        return rounded(total, merging)

    return Planned(first.name, first.shape, saving, make)


def _metadata(job: MergeModels, models: Sequence[Checkpoint]) -> dict[str, str]:
    first = models[0]
    kept = {key: text for key, text in first.metadata.items() if not key.startswith("modelspec.hash")}
    titles = [model.path.stem for model in models]
    spec = meta.modelspec(first.family, job.output.stem, titles, lora=False, v=first.predicts_v)
    options = {"mode": job.mode, "ratios": list(job.ratios), "mbw": job.mbw, "unet_only": job.unet_only}
    return kept | spec | meta.recipe("merge_models", [(path, {}) for path in job.models], options)
