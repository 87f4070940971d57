"""A LoRA in the names of another program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backend.errors import InputError
from backend.weights import metadata as meta
from backend.weights.names import DIALECTS, Dialect, renamed
from backend.weights.networkfile import NetworkFile, Parts, is_pair, open_network, pair
from backend.weights.output import write_network
from backend.weights.precision import dtype_named
from backend.weights.report import Part, Report, check_output
from backend.weights.streaming import Progress, silent

__all__ = ["DIALECTS", "ConvertLora", "run"]


@dataclass(frozen=True)
class ConvertLora:
    """Which file, and whose names it shall have."""

    model: Path
    save_to: Path
    to: Dialect = "diffusers"
    save_precision: str | None = None
    """None: as stored."""
    overwrite: bool = False


def run(job: ConvertLora, progress: Progress = silent) -> Report:
    """Rename and write.

    Raises:
        InputError: the file is no network, its family cannot be told, or it cannot be said in that dialect.
    """
    output = check_output(job.save_to, [job.model], job.overwrite)
    if job.to not in DIALECTS:
        raise InputError(f"unknown dialect {job.to}", next=f"choose one of {', '.join(DIALECTS)}", key="to")
    file = open_network(job.model)
    if file.family not in ("sd1", "sd2", "sdxl", "sd3"):
        raise InputError(
            f"{job.model.name} is a {file.kind} for {file.title}: its names are not known here",
            where=str(job.model),
        )
    tensors = _tensors(file, job.to)
    report = Report("convert_lora", output, [Part(name) for name in file.modules])
    report.facts = {"kind": file.kind, "family": file.title, "names": job.to}
    kept = {key: text for key, text in file.metadata.items() if not key.startswith("sshs_")}
    metadata = kept | meta.recipe("convert_lora", [(job.model, {})], {"to": job.to})
    progress("writing", 0, 1)
    write_network(output, tensors, metadata, dtype_named(job.save_precision))
    progress("writing", 1, 1)
    return report


def _tensors(file: NetworkFile, to: Dialect) -> dict[str, Tensor]:
    if to == "kohya":
        return {key: tensor for name, parts in file.modules.items() for key, tensor in _kohya(name, parts)}
    table = _paths(file, to)
    found: dict[str, Tensor] = {}
    for name, parts in file.modules.items():
        if to == "diffusers":
            found |= _peft(file, name, table[name])
        else:
            found |= {f"{table[name]}.{part}": tensor for part, tensor in parts.items()}
    return found


def _kohya(name: str, parts: Parts) -> Iterator[tuple[str, Tensor]]:
    prefix = "oft_" if "oft_blocks" in parts else "lora_"
    for part, tensor in parts.items():
        yield f"{prefix}{name}.{part}", tensor
    if is_pair(parts) and "alpha" not in parts:
        yield f"{prefix}{name}.alpha", torch.tensor(float(parts["lora_down.weight"].shape[0]))


def _paths(file: NetworkFile, to: Dialect) -> dict[str, str]:
    try:
        table = renamed(file.modules.keys(), file.family, to)
    except KeyError:
        raise InputError(
            f"a {file.kind} for {file.title} cannot be written in {to}'s names",
            where=str(file.path),
            why="its layers are stored in other pieces there",
            next="choose comfyui or kohya",
            key="to",
        ) from None
    return table


def _peft(file: NetworkFile, name: str, path: str) -> dict[str, Tensor]:
    """A pair as PEFT has it: no alpha, so alpha / rank goes into B."""
    parts = file.modules[name]
    if not is_pair(parts):
        raise InputError(
            f"{file.path.name} is a {file.kind}; diffusers' names are for plain LoRA pairs",
            where=f"{file.path}: {name}",
            next="choose comfyui, which reads all kinds",
            key="to",
        )
    found = pair(name, parts)
    scaled = (found.up.float() * found.scale).to(found.up.dtype)
    return {f"{path}.lora_A.weight": found.down, f"{path}.lora_B.weight": scaled}
