"""A DyLoRA taken apart into LoRAs of its ranks: unit, 2 * unit, ... below its own.

Each has the first columns and rows of the whole and its alpha, as DyLoRA was trained to be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from backend.errors import InputError
from backend.weights import metadata as meta
from backend.weights.networkfile import LINEAR, NetworkFile, open_network
from backend.weights.output import write_network
from backend.weights.report import Part, Report, check_output
from backend.weights.streaming import Progress, silent


@dataclass(frozen=True)
class Split:
    """Which DyLoRA, in steps of how many ranks."""

    model: Path
    save_to: Path
    """``name.safetensors`` becomes ``name-0004.safetensors`` and so on."""
    unit: int
    overwrite: bool = False


def run(job: Split, progress: Progress = silent) -> Report:
    """Write one file for each rank. All outputs are checked before the first is written.

    Raises:
        InputError: no plain pairs, a unit that gives no file, or an output that may not be written.
    """
    file = open_network(job.model)
    if job.unit < 1:
        raise InputError(f"--unit {job.unit}: at least 1", key="unit")
    pairs = file.pairs()
    if len(pairs) != len(file.modules):
        odd = next(name for name in file.modules if name not in pairs)
        raise InputError(f"{job.model.name} is a {file.kind}, no DyLoRA ({odd} is no plain pair)")
    highest = max((pair.rank for pair in pairs.values()), default=0)
    ranks = range(job.unit, highest, job.unit)
    if not ranks:
        raise InputError(
            f"--unit {job.unit} gives nothing to split: the rank is {highest}",
            next=f"choose a unit below {highest}",
            key="unit",
        )
    if not job.save_to.name:
        raise InputError("--save_to is missing", next="name the file to write", key="save_to")
    outputs = {rank: job.save_to.with_stem(f"{job.save_to.stem}-{rank:04d}") for rank in ranks}
    for path in outputs.values():
        check_output(path, [job.model], job.overwrite)
    report = Report("extract_lora_from_dylora", job.save_to)
    for place, (rank, path) in enumerate(outputs.items()):
        write_network(path, _cut(file, rank), _metadata(file, job, rank, highest), file.dtype)
        report.kept.append(Part(path.name, rank))
        progress("splitting", place + 1, len(outputs))
    report.notes.append(f"wrote {', '.join(path.name for path in outputs.values())}")
    return report


def _cut(file: NetworkFile, rank: int) -> dict[str, Tensor]:
    cuts = {"lora_down.weight": lambda t: t[:rank], "lora_up.weight": lambda t: t[:, :rank]}
    assert not LINEAR & cuts.keys()
    return {
        f"lora_{name}.{part}": cuts[part](tensor).contiguous() if part in cuts else tensor
        for name, parts in file.modules.items()
        for part, tensor in parts.items()
    }


def _metadata(file: NetworkFile, job: Split, rank: int, highest: int) -> dict[str, str]:
    comment = f"split from DyLoRA, rank {highest} to {rank}; {file.metadata.get('ss_training_comment', '')}"
    kept = {key: text for key, text in file.metadata.items() if not key.startswith("sshs_")}
    changed = {
        "ss_network_dim": str(rank),
        "ss_network_module": "networks.lora",
        "ss_training_comment": comment,
    }
    return (
        kept
        | changed
        | meta.recipe("extract_lora_from_dylora", [(job.model, {})], {"unit": job.unit, "rank": rank})
    )
