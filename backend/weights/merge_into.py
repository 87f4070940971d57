"""Networks into a checkpoint: W' = W + sum of ratio * change, tensor by tensor.

Every change is computed from the checkpoint's own weights, so the order of the networks does not
matter. Rows of a plain pair are added a piece at a time; kinds that need the whole weight (DoRA, OFT,
LoKr, ...) get it in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.errors import InputError, said_of
from backend.families.spots import Spot, other_names
from backend.networks.common import fitted
from backend.weights import metadata as meta
from backend.weights.blockweights import read_lbws, weight_of
from backend.weights.checkpoint import Checkpoint, open_checkpoint, yaml_note
from backend.weights.networkfile import (
    NetworkFile,
    Parts,
    change_of,
    check_fit,
    is_pair,
    open_network,
    pair,
)
from backend.weights.precision import device_named, dtype_named, rounded
from backend.weights.reading import Rows, Stored
from backend.weights.report import Dropped, Part, Report, check_output
from backend.weights.streaming import Planned, Progress, copied, silent, write_planned


@dataclass(frozen=True)
class MergeInto:
    """What to merge into what."""

    sd_model: Path
    models: Sequence[Path]
    ratios: Sequence[float]
    save_to: Path
    lbws: Sequence[str] = ()
    precision: str = "float"
    """Sums are kept in it before they are saved."""
    save_precision: str | None = None
    """None: that of ``precision``."""
    no_metadata: bool = False
    device: str | None = None
    """Where products of pairs are made; other kinds are made on the processor."""
    overwrite: bool = False


@dataclass(frozen=True)
class _Change:
    """What one network does to one tensor."""

    parts: Parts
    name: str
    ratio: float
    share: tuple[int, int]
    file: str
    on_bias: bool = False


@dataclass
class _Plan:
    """Key of the checkpoint -> changes, and what nothing takes."""

    changes: dict[str, list[_Change]] = field(default_factory=lambda: dict[str, list[_Change]]())
    dropped: list[Dropped] = field(default_factory=lambda: list[Dropped]())
    merged: list[Part] = field(default_factory=lambda: list[Part]())

    def add(self, key: str, change: _Change) -> None:
        self.changes.setdefault(key, []).append(change)


def run(job: MergeInto, progress: Progress = silent) -> Report:
    """Merge and write. Peak memory is a few pieces of some MB, or one weight with kinds that need it.

    Raises:
        InputError: files that cannot be merged, before anything is written.
        RunFault, EnvironmentFault: as :func:`backend.weights.streaming.write_planned`.
    """
    output = check_output(job.save_to, [job.sd_model, *job.models], job.overwrite)
    if len(job.ratios) != len(job.models):
        raise InputError(f"{len(job.models)} models, {len(job.ratios)} ratios", next="give one ratio a model")
    checkpoint = open_checkpoint(job.sd_model)
    files = [open_network(path) for path in job.models]
    for file in files:
        _require_family(file, checkpoint)
    weights = read_lbws(job.lbws, len(files), checkpoint.family)
    plan = _Plan()
    names = _Names(checkpoint)
    for place, (file, ratio) in enumerate(zip(files, job.ratios, strict=True)):
        _plan_file(plan, file, ratio, weights[place] if weights else None, names)
    merging, device = dtype_named(job.precision), device_named(job.device)
    saving = dtype_named(job.save_precision) or merging
    planned = [
        _planned(stored, plan.changes.get(name, ()), checkpoint, merging, saving, device)
        for name, stored in checkpoint.tensors.items()
    ]
    write_planned(output, planned, _metadata(job, checkpoint), progress)
    facts = {"checkpoint": checkpoint.facts.title, "changed tensors": len(plan.changes)}
    notes = [*_notes(files), *yaml_note(checkpoint.family, checkpoint.predicts_v, output)]
    return Report("merge_lora", output, plan.merged, plan.dropped, notes, facts)


def _require_family(file: NetworkFile, checkpoint: Checkpoint) -> None:
    if file.family not in ("unknown", checkpoint.family):
        raise InputError(
            f"{file.path.name} is a {file.kind} for {file.title}; the model is {checkpoint.facts.title}",
            where=str(file.path),
            next="choose a LoRA made for this family",
        )


class _Names:
    """Modules of a checkpoint by every name a network may use."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._spots = {spot.name: spot for spot in checkpoint.spots()}
        self._others = other_names(checkpoint.family, checkpoint.tensors.keys())

    def find(self, name: str) -> Spot | None:
        return self._spots.get(name) or self._spots.get(self._others.get(name, ""))

    def shape(self, spot: Spot) -> tuple[int, ...]:
        """Shape of the module's weight."""
        shape = self.checkpoint.tensors[spot.key].shape
        return (shape[0] // spot.share[1], *shape[1:])


def _plan_file(
    plan: _Plan, file: NetworkFile, ratio: float, weights: Sequence[float] | None, names: _Names
) -> None:
    found = 0
    for name, parts in file.modules.items():
        spot = names.find(name)
        if spot is None:
            plan.dropped.append(Dropped(name, f"{file.path.name}: the model has no such layer"))
            continue
        check_fit(file, name, names.shape(spot))
        found += 1
        strength = ratio * weight_of(spot.name, weights)
        plan.merged.append(Part(f"{file.path.stem}: {name}", rank=_rank(parts), values={"ratio": strength}))
        if strength:
            _plan_module(plan, spot, _Change(parts, spot.name, strength, spot.share, str(file.path)), names)
    if not found:
        raise InputError(
            f"{file.path.name} has no layer in common with {names.checkpoint.path.name}",
            where=str(file.path),
            why=f"the file is a {file.kind} for {file.title}, the model is {names.checkpoint.facts.title}",
            next="choose a LoRA made for this model",
        )


def _rank(parts: Parts) -> int | None:
    down = parts.get("lora_down.weight")
    return None if down is None else down.shape[0]


def _plan_module(plan: _Plan, spot: Spot, change: _Change, names: _Names) -> None:
    plan.add(spot.key, change)
    if change.parts.keys() & {"diff_b", "b_norm"}:
        if spot.bias not in names.checkpoint.tensors:
            raise InputError(
                f"{spot.name}: the file changes a bias that the model does not have",
                where=change.file,
                next="choose a LoRA made for this model",
            )
        plan.add(spot.bias, replace(change, on_bias=True))


def _planned(
    stored: Stored,
    changes: Sequence[_Change],
    checkpoint: Checkpoint,
    merging: torch.dtype | None,
    saving: torch.dtype | None,
    device: torch.device,
) -> Planned:
    if not changes:
        return copied(stored, saving)
    if all(is_pair(change.parts) and change.share == (0, 1) for change in changes):
        factors = [_scaled_pair(change) for change in changes]

        def make(rows: Rows | None) -> Tensor:
            return rounded(_with_pairs(stored, factors, rows, device), merging)

        return Planned(stored.name, stored.shape, saving or stored.dtype, make)

    def make_whole(rows: Rows | None) -> Tensor:
        assert rows is None
        return rounded(_with_changes(stored, changes), merging)

    return Planned(stored.name, stored.shape, saving or stored.dtype, make_whole, by_rows=False)


_Scaled = tuple[Tensor, Tensor, float, float]
"""up (out, r) and down (r, n) in float32, ratio, alpha / r."""


def _scaled_pair(change: _Change) -> _Scaled:
    found = pair(change.name, change.parts)
    return found.up.float().flatten(1), found.down.float().flatten(1), change.ratio, found.scale


def _with_pairs(
    stored: Stored, factors: Sequence[_Scaled], rows: Rows | None, device: torch.device
) -> Tensor:
    """The factors are applied one by one in sd-scripts' order, so that results round as there."""
    weight = stored.read(rows).to(device, torch.float32)
    flat = weight.flatten(1)
    for up, down, ratio, scale in factors:
        own = up if rows is None else up[rows[0] : rows[1]]
        product = own.to(device) @ down.to(device)
        flat.add_(product.mul_(ratio).mul_(scale))
    return weight.cpu()


@torch.no_grad()
def _with_changes(stored: Stored, changes: Sequence[_Change]) -> Tensor:
    base = stored.read(None).float()
    result = base.clone()
    for change in changes:
        place, count = change.share
        size = base.shape[0] // count
        rows = slice(place * size, (place + 1) * size)
        result[rows].add_(_change(change, base[rows]), alpha=change.ratio)
    return result


def _change(change: _Change, own: Tensor) -> Tensor:
    if change.on_bias:
        bias = change.parts.get("diff_b", change.parts.get("b_norm"))
        assert bias is not None
        return bias.float().reshape(own.shape)
    if is_pair(change.parts):
        found = pair(change.name, change.parts)
        product = (found.up.float().flatten(1) * found.scale) @ found.down.float().flatten(1)
        return product.reshape(own.shape)
    return _other_change(change, own)


def _other_change(change: _Change, own: Tensor) -> Tensor:
    """A 1x1 convolution's change may stand for a linear layer's, and the reverse."""
    parts = dict(change.parts)
    if "diff" in parts:
        diff = fitted(parts["diff"], own.shape)
        assert diff is not None, "checked before"
        parts["diff"] = diff
    if parts.keys() == {"diff_b"}:
        return torch.zeros_like(own)
    with said_of(change.file):
        return change_of(change.name, parts, own, bool(parts.keys() & {"diff_b", "b_norm"}))[0]


def _metadata(job: MergeInto, checkpoint: Checkpoint) -> dict[str, str]:
    if job.no_metadata:
        kept = ("atelier.components", "format")
        return {key: checkpoint.metadata[key] for key in kept if key in checkpoint.metadata}
    lbws = list(job.lbws) or [""] * len(job.models)
    used: list[tuple[Path, dict[str, Any]]] = [(job.sd_model, {})]
    for path, ratio, lbw in zip(job.models, job.ratios, lbws, strict=True):
        used.append((path, {"ratio": ratio, **({"lbw": lbw} if lbw else {})}))
    stems = [path.stem for path, _ in used]
    kept = {key: value for key, value in checkpoint.metadata.items() if not key.startswith("modelspec.hash")}
    spec = meta.modelspec(checkpoint.family, job.save_to.stem, stems, lora=False, v=checkpoint.predicts_v)
    options = {"precision": job.precision, "save_precision": job.save_precision}
    return {**kept, **spec, **meta.recipe("merge_lora", used, options)}


def _notes(files: Sequence[NetworkFile]) -> list[str]:
    return [f"{file.path.name}: {file.kind}, {len(file.modules)} modules" for file in files]
