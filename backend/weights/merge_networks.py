"""Networks into one network.

Low-rank pairs are put side by side: ``[s1 up1, s2 up2] @ [down1; down2]`` is the sum of the products,
exactly, whatever the ranks are. Ranks add. With ``new_rank`` the sum is brought to a lower rank by SVD.
A ratio of 0.5 contributes half of a file's change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend import keyed
from backend.errors import InputError
from backend.weights import metadata as meta
from backend.weights.blockweights import read_lbws, weight_of
from backend.weights.networkfile import (
    LINEAR,
    NetworkFile,
    Parts,
    change_of,
    is_pair,
    on_weight_kind,
    open_network,
    pair,
    require_same_family,
)
from backend.weights.output import in_parallel, pair_tensors, write_network
from backend.weights.precision import device_named, dtype_named, rounded
from backend.weights.report import Part, Report, check_output
from backend.weights.streaming import Progress, silent
from backend.weights.svd import clamped, of_matrix, of_product, product_error

CLAMP = 0.99


@dataclass(frozen=True)
class MergeNetworks:
    """Which files, with how much of each."""

    models: Sequence[Path]
    ratios: Sequence[float]
    save_to: Path
    lbws: Sequence[str] = ()
    new_rank: int | None = None
    """None: exact, ranks add."""
    new_conv_rank: int | None = None
    """For kernels larger than 1x1; None: as ``new_rank``."""
    shuffle: bool = False
    """Put the ranks in another order, for use with DyLoRA."""
    clamp_quantile: float = CLAMP
    exact: bool = False
    precision: str = "float"
    save_precision: str | None = None
    device: str | None = None
    no_metadata: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class _Share:
    """What one file gives to a module."""

    file: NetworkFile
    parts: Parts
    ratio: float


def run(job: MergeNetworks, progress: Progress = silent) -> Report:
    """Merge and write.

    Raises:
        InputError: no files, kinds that cannot be summed (named), other shapes, different families.
    """
    output = check_output(job.save_to, job.models, job.overwrite)
    _check(job)
    files = [open_network(path) for path in job.models]
    family = require_same_family(files)
    shares = _shares(job, files, family)
    report = Report("merge_lora" if job.new_rank is None else "svd_merge_lora", output)
    device, merging = device_named(job.device), dtype_named(job.precision)
    tensors: dict[str, Tensor] = {}

    def work(item: tuple[str, list[_Share]]) -> _Merged:
        return _merged(*item, job, device, merging)

    for merged in in_parallel("merging", work, shares.items(), progress):
        tensors |= merged.tensors
        report.kept.append(merged.part)
    metadata = _metadata(job, files, family, tensors)
    write_network(output, tensors, metadata, dtype_named(job.save_precision) or merging)
    report.notes += [f"{file.path.name}: {file.kind}, {len(file.modules)} modules" for file in files]
    return report


def _check(job: MergeNetworks) -> None:
    if not job.models:
        raise InputError("no models to merge", next="name them with --models", key="models")
    if len(job.ratios) != len(job.models):
        raise InputError(f"{len(job.models)} models, {len(job.ratios)} ratios", next="give one ratio a model")
    for key, rank in (("new_rank", job.new_rank), ("new_conv_rank", job.new_conv_rank)):
        if rank is not None and rank < 1:
            raise InputError(f"--{key} {rank}: a rank is at least 1", key=key)


def _shares(job: MergeNetworks, files: Sequence[NetworkFile], family: str) -> dict[str, list[_Share]]:
    weights = read_lbws(job.lbws, len(files), family)
    found: dict[str, list[_Share]] = {}
    for place, (file, ratio) in enumerate(zip(files, job.ratios, strict=True)):
        for name, parts in file.modules.items():
            _require_summable(file, name, parts, job.new_rank is not None)
            strength = ratio * weight_of(name, weights[place] if weights else None)
            found.setdefault(name, []).append(_Share(file, parts, strength))
    return found


def _require_summable(file: NetworkFile, name: str, parts: Parts, by_svd: bool) -> None:
    """Refuse kinds whose sum is no network of a kind that is written here."""
    if is_pair(parts) or parts.keys() <= LINEAR:
        return
    kind = on_weight_kind(parts)
    if kind is not None:
        why = f"what {kind} does depends on the weight it is added to, so it cannot be summed without it"
    elif by_svd:
        return
    else:
        why = "its change is no plain pair of up and down weights"
    raise InputError(
        f"{file.path.name} is a {kind or file.kind} and cannot be merged with another network",
        where=f"{file.path}: {name}",
        why=why,
        next="merge it into a checkpoint (--sd_model)"
        + ("" if kind else ", or approximate it by a LoRA with svd_merge_lora.py"),
    )


@dataclass(frozen=True)
class _Merged:
    tensors: dict[str, Tensor]
    part: Part


@torch.no_grad()
def _merged(
    name: str, shares: Sequence[_Share], job: MergeNetworks, device: torch.device, merging: torch.dtype | None
) -> _Merged:
    linear = [share for share in shares if share.parts.keys() <= LINEAR]
    if linear and len(linear) != len(shares):
        raise InputError(
            f"{name} is a pair in {next(s.file.path.name for s in shares if s not in linear)} and a whole "
            f"difference in {linear[0].file.path.name}; their sum is neither"
        )
    if linear:
        return _summed(name, linear)
    shape = _shape(name, shares)
    if not all(is_pair(share.parts) for share in shares):
        return _approximated(name, shares, shape, job, device)
    up, down = _stacked(shares, shape, device, merging)
    if job.new_rank is None:
        if job.shuffle:
            order = torch.randperm(up.shape[1], generator=keyed.generator(0, "shuffle", name))
            up, down = up[:, order], down[order]
        tensors = pair_tensors(name, up, down, up.shape[1], shape)
        return _Merged(tensors, Part(name, up.shape[1], 0.0))
    return _reduced(name, up, down, shape, job)


def _shape(name: str, shares: Sequence[_Share]) -> tuple[int, ...]:
    """The shape of the weight that all shares are for."""
    shapes: dict[tuple[int, ...], NetworkFile] = {}
    for share in shares:
        shape = own_shape(share.parts)
        if shape is not None:
            shapes.setdefault(tuple(n for n in shape if n != 1), share.file)
            first = shape if len(shapes) == 1 else None
            if first is None:
                one, other = list(shapes.values())[:2]
                raise InputError(
                    f"{name} is for weights of other shapes in {one.path.name} and {other.path.name}",
                    why="they were made for different models",
                    next="merge files made for one model",
                )
    found = next((shape for shape in map(own_shape, (share.parts for share in shares)) if shape), None)
    if found is None:
        raise InputError(f"{name}: the shape of its weight cannot be told from {shares[0].file.path.name}")
    return found


def own_shape(parts: Parts) -> tuple[int, ...] | None:
    """The shape of the weight that a change is for, from its parts alone; None when they do not tell."""
    if is_pair(parts):
        up, down = parts["lora_up.weight"], parts["lora_down.weight"]
        return (up.shape[0], *down.shape[1:])
    if "lora_mid.weight" in parts:
        up, mid, down = (parts[f"lora_{part}.weight"] for part in ("up", "mid", "down"))
        return (up.shape[0], down.shape[1], *mid.shape[2:])
    if "hada_t1" in parts:
        return (parts["hada_w1_a"].shape[1], parts["hada_w1_b"].shape[1], *parts["hada_t1"].shape[2:])
    if "hada_w1_a" in parts:
        return (parts["hada_w1_a"].shape[0], parts["hada_w1_b"].shape[1])
    if "lokr_w1" in parts or "lokr_w1_a" in parts:
        return _kronecker_shape(parts)
    return None


def _kronecker_shape(parts: Parts) -> tuple[int, ...]:
    small = (
        parts["lokr_w1"].shape
        if "lokr_w1" in parts
        else (parts["lokr_w1_a"].shape[0], parts["lokr_w1_b"].shape[1])
    )
    if "lokr_w2" in parts:
        large: tuple[int, ...] = tuple(parts["lokr_w2"].shape)
    elif "lokr_t2" in parts:
        large = (parts["lokr_w2_a"].shape[1], parts["lokr_w2_b"].shape[1], *parts["lokr_t2"].shape[2:])
    else:
        large = (parts["lokr_w2_a"].shape[0], parts["lokr_w2_b"].shape[1])
    return (small[0] * large[0], small[1] * large[1], *large[2:])


def _summed(name: str, shares: Sequence[_Share]) -> _Merged:
    """Whole differences and norm weights: the weighted sum."""
    total: dict[str, Tensor] = {}
    for share in shares:
        for part, tensor in share.parts.items():
            key, value = f"lora_{name}.{part}", tensor.float() * share.ratio
            total[key] = total[key] + value if key in total else value
    return _Merged(total, Part(name, None, 0.0))


def _stacked(
    shares: Sequence[_Share], shape: tuple[int, ...], device: torch.device, merging: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """up (out, sum of ranks), down (sum of ranks, n): their product is the sum of all changes.

    A file's factor goes into both halves alike, so that neither runs out of fp16's range.
    """
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    for share in shares:
        own = pair("", share.parts)
        factor = share.ratio * own.scale
        half = abs(factor) ** 0.5
        up = own.up.to(device, torch.float32).flatten(1) * (half if factor >= 0 else -half)
        ups.append(rounded(up, merging))
        downs.append(rounded(own.down.to(device, torch.float32).flatten(1) * half, merging))
    assert len(shape) > 1
    return torch.cat(ups, 1), torch.cat(downs)


def _reduced(name: str, up: Tensor, down: Tensor, shape: tuple[int, ...], job: MergeNetworks) -> _Merged:
    found = of_product(up, down)
    rank = min(_wanted(job, shape), found.s.numel(), up.shape[1])
    new_up, new_down = clamped(found.u[:, :rank] * found.s[:rank], found.vh[:rank], job.clamp_quantile)
    error = product_error(up, down, new_up, new_down)
    return _Merged(pair_tensors(name, new_up, new_down, rank, shape), Part(name, rank, error))


def _approximated(
    name: str, shares: Sequence[_Share], shape: tuple[int, ...], job: MergeNetworks, device: torch.device
) -> _Merged:
    """A sum with kinds that are no pairs (LoHa, LoKr, Tucker), built whole and brought to a rank."""
    total = torch.zeros(shape)
    for share in shares:
        change, _ = change_of(name, share.parts, torch.zeros(shape), has_bias=False)
        total += share.ratio * change
    matrix = total.flatten(1).to(device)
    rank = min(_wanted(job, shape), *matrix.shape)
    found = of_matrix(matrix, rank, exact=job.exact)
    up, down = clamped(found.u[:, :rank] * found.s[:rank], found.vh[:rank], job.clamp_quantile)
    size = float(torch.linalg.vector_norm(matrix)) or 1.0
    error = float(torch.linalg.vector_norm(matrix - up @ down)) / size
    return _Merged(pair_tensors(name, up, down, rank, shape), Part(name, rank, error))


def _wanted(job: MergeNetworks, shape: Sequence[int]) -> int:
    is_kernel = len(shape) == 4 and tuple(shape[2:]) != (1, 1)
    rank = job.new_conv_rank if is_kernel and job.new_conv_rank is not None else job.new_rank
    assert rank is not None
    return min(rank, shape[0], shape[1])


def _metadata(
    job: MergeNetworks, files: Sequence[NetworkFile], family: str, tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    kept = {key: text for file in files for key, text in _identity(file)} if files else {}
    sizes = meta.network_size(*_sizes(tensors), conv=_conv(job))
    found = meta.identity(family, kept) | sizes
    if job.no_metadata:
        return found
    titles = [file.metadata.get("modelspec.title") or file.path.stem for file in files]
    lbws = list(job.lbws) or [""] * len(files)
    used: list[tuple[Path, dict[str, Any]]] = [
        (path, {"ratio": ratio, **({"lbw": lbw} if lbw else {})})
        for path, ratio, lbw in zip(job.models, job.ratios, lbws, strict=True)
    ]
    v = found.get("ss_base_model_version", "").endswith("_v")
    spec = meta.modelspec(family, job.save_to.stem, titles, lora=True, v=v)
    options = {"new_rank": job.new_rank, "new_conv_rank": job.new_conv_rank, "shuffle": job.shuffle}
    return found | spec | meta.recipe("merge_lora", used, options)


def _identity(file: NetworkFile) -> Iterator[tuple[str, str]]:
    for key in ("ss_v2", "ss_base_model_version"):
        if key in file.metadata:
            yield key, file.metadata[key]


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[list[int], list[float]]:
    """Ranks and alphas of modules that are no kernels larger than 1x1."""
    ranks: list[int] = []
    alphas: list[float] = []
    for key, tensor in tensors.items():
        if key.endswith(".lora_down.weight") and (tensor.dim() == 2 or tuple(tensor.shape[2:]) == (1, 1)):
            ranks.append(tensor.shape[0])
            alphas.append(float(tensors[key.replace("lora_down.weight", "alpha")]))
    return ranks, alphas


def _conv(job: MergeNetworks) -> tuple[int, float] | None:
    return None if job.new_conv_rank is None else (job.new_conv_rank, float(job.new_conv_rank))
