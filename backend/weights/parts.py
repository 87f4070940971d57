"""SD 3's parts, which also come as files of their own, in one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import InputError
from backend.families.sd3.weights import PREFIXES, TITLES
from backend.system.identify import identify
from backend.weights import metadata as meta
from backend.weights.precision import dtype_named
from backend.weights.reading import TensorFile, open_file
from backend.weights.report import Part, Report, check_output
from backend.weights.streaming import Planned, Progress, copied, silent, write_planned

_MARKS: Mapping[str, str] = {
    "transformer": "joint_blocks.0.x_block.attn.qkv.weight",
    "clip_l": "text_model.embeddings.token_embedding.weight",
    "clip_g": "text_model.embeddings.token_embedding.weight",
    "t5xxl": "encoder.block.0.layer.0.SelfAttention.q.weight",
    "vae": "decoder.conv_in.weight",
}
"""Part -> a tensor that it has for certain."""


@dataclass(frozen=True)
class JoinParts:
    """The transformer's file, and those of other parts, which win over what it has of them."""

    dit: Path
    output: Path
    vae: Path | None = None
    clip_l: Path | None = None
    clip_g: Path | None = None
    t5xxl: Path | None = None
    save_precision: str | None = None
    """None: as stored."""
    overwrite: bool = False


def run(job: JoinParts, progress: Progress = silent) -> Report:
    """Write one file in the original layout.

    Raises:
        InputError: a file is not the part that it was given as.
    """
    given = {"vae": job.vae, "clip_l": job.clip_l, "clip_g": job.clip_g, "t5xxl": job.t5xxl}
    own = {part: path for part, path in given.items() if path is not None}
    inputs = [job.dit, *own.values()]
    output = check_output(job.output, inputs, job.overwrite, "output")
    dtype = dtype_named(job.save_precision)
    base = open_file(job.dit)
    planned = {item.name: item for item in _of_part(base, "transformer", dtype)}
    for part, prefix in PREFIXES.items():
        if part != "transformer" and part not in own:
            planned |= {n: copied(s, dtype) for n, s in base.tensors.items() if n.startswith(prefix)}
    for part, path in own.items():
        planned |= {item.name: item for item in _of_part(open_file(path), part, dtype)}
    report = Report("merge_sd3_safetensors", output)
    for part, prefix in PREFIXES.items():
        count = sum(name.startswith(prefix) for name in planned)
        if count:
            report.kept.append(Part(TITLES[part], values={"tensors": count}))
        else:
            report.notes.append(f"no {TITLES[part]} inside")
    spec = meta.modelspec("sd3", output.stem, [path.stem for path in inputs], lora=False)
    recipe = meta.recipe("merge_sd3_safetensors", [(path, {}) for path in inputs], {})
    write_planned(output, list(planned.values()), {**base.metadata, **spec, **recipe}, progress)
    return report


def _of_part(file: TensorFile, part: str, dtype: torch.dtype | None) -> Iterator[Planned]:
    """The part's tensors under their names in a whole file."""
    prefix = _prefix(file, part)
    for name, stored in file.tensors.items():
        if name.startswith(prefix) and (prefix or part != "transformer" or not _foreign(name)):
            yield copied(stored, dtype, PREFIXES[part] + name[len(prefix) :])


def _foreign(name: str) -> bool:
    return name.startswith(tuple(PREFIXES.values()))


def _prefix(file: TensorFile, part: str) -> str:
    """What stands before the part's names in the file."""
    for prefix in (PREFIXES[part], "transformer.", ""):
        if prefix + _MARKS[part] in file.tensors:
            return prefix
    raise InputError(
        f"{file.path.name} has no {TITLES[part]}: this is {identify(file.path).title}",
        where=str(file.path),
        key="dit" if part == "transformer" else part,
    )
