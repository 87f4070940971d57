"""A LoRA with other ranks: each product up @ down is replaced by its best one of lower rank.

The strength alpha / rank of every module stays. Ranks are fixed, or chosen for each module by its
singular values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from backend.errors import InputError
from backend.networks.delta import Factors
from backend.weights import metadata as meta
from backend.weights.networkfile import LINEAR, NetworkFile, open_network
from backend.weights.output import in_parallel, pair_tensors, write_network
from backend.weights.precision import device_named, dtype_named
from backend.weights.report import Part, Report, check_output
from backend.weights.streaming import Progress, silent
from backend.weights.svd import of_product

Method = Literal["sv_ratio", "sv_fro", "sv_cumulative"]


@dataclass(frozen=True)
class Resize:
    """Which file, and to what ranks."""

    model: Path
    save_to: Path
    new_rank: int = 4
    """With a dynamic method the most a module may have."""
    new_conv_rank: int | None = None
    """For kernels larger than 1x1; None: as ``new_rank``."""
    dynamic_method: Method | None = None
    dynamic_param: float | None = None
    save_precision: str | None = None
    """None: float."""
    device: str | None = None
    overwrite: bool = False


def run(job: Resize, progress: Progress = silent) -> Report:
    """Resize and write.

    Raises:
        InputError: a file that is no LoRA of plain pairs, or ranks and parameters out of range.
    """
    output = check_output(job.save_to, [job.model], job.overwrite)
    _check(job)
    file = open_network(job.model)
    _require_pairs(file)
    device = device_named(job.device)
    tensors: dict[str, Tensor] = {}
    report = Report("resize_lora", output)

    def work(item: tuple[str, Factors]) -> tuple[str, Factors, _Resized]:
        return *item, _resized(item[1], job, device)

    for name, pair, new in in_parallel("resizing", work, file.pairs().items(), progress):
        tensors |= pair_tensors(name, new.up, new.down, pair.scale * new.rank, _shape(pair))
        report.kept.append(Part(name, new.rank, new.error, new.values))
    tensors |= _others(file)
    _note_clamped(report, file, job)
    metadata = _metadata(file, job, report)
    write_network(output, tensors, metadata, dtype_named(job.save_precision) or torch.float32)
    return report


def _check(job: Resize) -> None:
    for key, rank in (("new_rank", job.new_rank), ("new_conv_rank", job.new_conv_rank)):
        if rank is not None and rank < 1:
            raise InputError(f"--{key} {rank}: a rank is at least 1", key=key)
    if job.dynamic_method is None:
        return
    value, low = job.dynamic_param, job.dynamic_method == "sv_ratio"
    if value is None:
        raise InputError(f"--dynamic_method {job.dynamic_method} needs --dynamic_param", key="dynamic_param")
    if (low and value < 2) or (not low and not 0 <= value <= 1):
        allowed = "2 or more" if low else "from 0 to 1"
        raise InputError(
            f"--dynamic_param {value}: {job.dynamic_method} takes {allowed}", key="dynamic_param"
        )


def _require_pairs(file: NetworkFile) -> None:
    pairs = file.pairs()
    for name, parts in file.modules.items():
        if name not in pairs and not parts.keys() <= LINEAR:
            raise InputError(
                f"{file.path.name} is a {file.kind}: only plain LoRA pairs have a rank that can be changed",
                where=str(file.path),
                why=f"{name} holds {', '.join(sorted(parts))}",
                next="choose a LoRA, or merge this file into a checkpoint",
            )


@dataclass(frozen=True)
class _Resized:
    up: Tensor
    down: Tensor
    rank: int
    error: float
    values: dict[str, float | int | str]


def _shape(pair: Factors) -> tuple[int, ...]:
    return (pair.up.shape[0], *pair.down.shape[1:])


def is_kernel(pair: Factors) -> bool:
    """Whether the module is a convolution larger than 1x1."""
    return pair.down.dim() == 4 and tuple(pair.down.shape[2:]) != (1, 1)


def _resized(pair: Factors, job: Resize, device: torch.device) -> _Resized:
    up, down = (t.to(device, torch.float32).flatten(1) for t in (pair.up, pair.down))
    found = of_product(up, down)
    cap = job.new_conv_rank if is_kernel(pair) and job.new_conv_rank is not None else job.new_rank
    rank = rank_by(found.s, job.dynamic_method, job.dynamic_param, min(cap, pair.rank))
    kept, values = found.s[:rank].double(), found.s.double()
    total = float(values.sum()) or 1.0
    table: dict[str, float | int | str] = {
        "of": pair.rank,
        "sum(S) retained": f"{float(kept.sum()) / total:.1%}",
        "fro retained": f"{1 - found.error(rank) ** 2:.1%}",
        "max(S) ratio": float(values[0] / kept[-1]) if float(kept[-1]) else 0.0,
    }
    return _Resized(found.u[:, :rank] * found.s[:rank], found.vh[:rank], rank, found.error(rank), table)


def rank_by(values: Tensor, method: Method | None, parameter: float | None, cap: int) -> int:
    """The rank that a method gives for falling singular values, from 1 to ``cap``.

    ``sv_ratio`` p: values above the largest over p. ``sv_cumulative`` p: as many as it takes for
    their sum to reach the share p of all. ``sv_fro`` p: for the root of the sum of their squares to
    reach p. sd-scripts takes one more than each of these rules says.
    """
    cap = min(cap, values.numel())
    if method is None or not float(values[0]):
        return cap if method is None else 1
    assert parameter is not None
    values = values.double()
    if method == "sv_ratio":
        count = int((values > values[0] / parameter).sum())
    else:
        powers, wanted = (values, parameter) if method == "sv_cumulative" else (values.square(), parameter**2)
        share = powers.cumsum(0) / powers.sum()
        count = int((share < wanted).sum()) + 1
    return max(1, min(count, cap))


def _others(file: NetworkFile) -> dict[str, Tensor]:
    """What has no rank (norm weights, whole differences) as it is."""
    return {
        f"lora_{name}.{part}": tensor
        for name, parts in file.modules.items()
        if parts.keys() <= LINEAR
        for part, tensor in parts.items()
    }


def _note_clamped(report: Report, file: NetworkFile, job: Resize) -> None:
    small = [
        name
        for name, pair in file.pairs().items()
        if pair.rank < (job.new_conv_rank if is_kernel(pair) and job.new_conv_rank else job.new_rank)
    ]
    if small:
        report.notes.append(
            f"{len(small)} modules have a lower rank than asked for already and keep it, such as {small[0]}"
        )
    others = len(_others(file))
    if others:
        report.notes.append(f"{others} tensors without a rank are kept as they are")


def _metadata(file: NetworkFile, job: Resize, report: Report) -> dict[str, str]:
    """The file's own, with the new sizes and a word in the comment, as sd-scripts writes it."""
    pairs = file.pairs()
    plain = [part for part in report.kept if not is_kernel(pairs[part.name])]
    old = max((pair.rank for pair in pairs.values()), default=0)
    alphas = [(part.rank or 0) * pairs[part.name].scale for part in plain or report.kept]
    comment = file.metadata.get("ss_training_comment", "")
    if job.dynamic_method is None:
        conv = f" (conv: {job.new_conv_rank})" if job.new_conv_rank else ""
        sizes = {"ss_network_dim": str(job.new_rank), "ss_network_alpha": str(alphas[0] if alphas else 0)}
        comment = f"dimension is resized from {old} to {job.new_rank}{conv}; {comment}"
    else:
        sizes = {"ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"}
        comment = f"Dynamic resize with {job.dynamic_method}: {job.dynamic_param} from {old}; {comment}"
    kept = {key: text for key, text in file.metadata.items() if not key.startswith("sshs_")}
    options: Mapping[str, object] = {
        "new_rank": job.new_rank,
        "new_conv_rank": job.new_conv_rank,
        "dynamic_method": job.dynamic_method,
        "dynamic_param": job.dynamic_param,
    }
    return (
        kept
        | sizes
        | {"ss_training_comment": comment}
        | meta.recipe("resize_lora", [(job.model, {})], options)
    )
