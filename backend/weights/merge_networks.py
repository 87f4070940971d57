"""Networks into one network.

Low-rank pairs are put side by side: ``[s1 up1, s2 up2] @ [down1; down2]`` is the sum of the products,
exactly, whatever the ranks are. Ranks add. With ``new_rank`` the sum is brought to a lower rank by SVD.
A ratio of 0.5 contributes half of a file's change. An exact sum is made while it is written, a few tensors
at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend import keyed
from backend.errors import InputError
from backend.networks.delta import Factors
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
from backend.weights.safefile import Shaped
from backend.weights.streaming import Planned, Progress, silent, write_planned
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
    (_write_exact if job.new_rank is None else _write_reduced)(job, files, shares, report, progress)
    report.notes += [f"{file.path.name}: {file.kind}, {len(file.modules)} modules" for file in files]
    return report


def _write_exact(
    job: MergeNetworks,
    files: Sequence[NetworkFile],
    shares: Mapping[str, list[_Share]],
    report: Report,
    progress: Progress,
) -> None:
    planned: list[Planned] = []
    for name, own in shares.items():
        part, tensors = _planned(name, own, job)
        report.kept.append(part)
        planned += tensors
    metadata = _metadata(job, files, {item.name: item for item in planned})

    def told(_: str, done: int, total: int) -> None:
        progress("merging", done, total)

    write_planned(report.output, planned, metadata, told, hashed=True)


def _write_reduced(
    job: MergeNetworks,
    files: Sequence[NetworkFile],
    shares: Mapping[str, list[_Share]],
    report: Report,
    progress: Progress,
) -> None:
    device, merging = device_named(job.device), dtype_named(job.precision)
    tensors: dict[str, Tensor] = {}

    def work(item: tuple[str, list[_Share]]) -> _Merged:
        return _merged(*item, job, device, merging)

    for merged in in_parallel("merging", work, shares.items(), progress):
        tensors |= merged.tensors
        report.kept.append(merged.part)
    metadata = _metadata(job, files, tensors)
    write_network(report.output, tensors, metadata, dtype_named(job.save_precision) or merging)


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


def _are_linear(name: str, shares: Sequence[_Share]) -> bool:
    """Whether what is added to a module stands in the files as it is."""
    linear = [share for share in shares if share.parts.keys() <= LINEAR]
    if linear and len(linear) != len(shares):
        raise InputError(
            f"{name} is a pair in {next(s.file.path.name for s in shares if s not in linear)} and a whole "
            f"difference in {linear[0].file.path.name}; their sum is neither"
        )
    return bool(linear)


def _planned(name: str, shares: Sequence[_Share], job: MergeNetworks) -> tuple[Part, list[Planned]]:
    """What a module of an exact sum is made of, when its turn comes."""
    merging = dtype_named(job.precision)
    saving = dtype_named(job.save_precision) or merging or torch.float32
    if _are_linear(name, shares):
        sums = _sums(name, shares)
        return Part(name, None, 0.0), [_whole(key, shape, saving, make) for key, shape, make in sums]
    out, *rest = _shape(name, shares)
    stack = _Stack.of(name, shares, device_named(job.device), merging, job.shuffle)
    down, up = (stack.rank, *rest), (out, stack.rank, *[1] * len(rest[1:]))
    return Part(name, stack.rank, 0.0), [
        _whole(f"lora_{name}.lora_down.weight", down, saving, lambda: stack.down().reshape(down).cpu()),
        _whole(f"lora_{name}.lora_up.weight", up, saving, lambda: stack.up().reshape(up).cpu()),
        _whole(f"lora_{name}.alpha", (), saving, lambda: torch.tensor(float(stack.rank))),
    ]


def _whole(key: str, shape: Sequence[int], dtype: torch.dtype, make: Callable[[], Tensor]) -> Planned:
    return Planned(key, tuple(shape), dtype, lambda _: make(), by_rows=False)


@dataclass(frozen=True)
class _Merged:
    tensors: dict[str, Tensor]
    part: Part


@torch.no_grad()
def _merged(
    name: str, shares: Sequence[_Share], job: MergeNetworks, device: torch.device, merging: torch.dtype | None
) -> _Merged:
    if _are_linear(name, shares):
        return _Merged({key: make() for key, _, make in _sums(name, shares)}, Part(name, None, 0.0))
    shape = _shape(name, shares)
    if not all(is_pair(share.parts) for share in shares):
        return _approximated(name, shares, shape, job, device)
    stack = _Stack.of(name, shares, device, merging)
    return _reduced(name, stack.up(), stack.down(), shape, job)


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


def _sums(name: str, shares: Sequence[_Share]) -> Iterator[tuple[str, tuple[int, ...], Callable[[], Tensor]]]:
    """Whole differences and norm weights: name, shape, and what makes the weighted sum."""
    for part in sorted({part for share in shares for part in share.parts}):
        own = [(share.parts[part], share) for share in shares if part in share.parts]
        first, share = own[0]
        other = next((share.file.path.name for tensor, share in own if tensor.shape != first.shape), None)
        if other is not None:
            raise InputError(
                f"{name} is for weights of other shapes in {share.file.path.name} and {other}",
                why="they were made for different models",
                next="merge files made for one model",
            )
        yield f"lora_{name}.{part}", tuple(first.shape), partial(_sum, own)


def _sum(own: Sequence[tuple[Tensor, _Share]]) -> Tensor:
    return torch.stack([tensor.float() * share.ratio for tensor, share in own]).sum(0)


@dataclass(frozen=True)
class _Stack:
    """Pairs side by side: up (out, sum of ranks) @ down (sum of ranks, n) is the sum of all changes.

    A file's factor goes into both halves alike, so that neither runs out of fp16's range.
    """

    pairs: Sequence[tuple[Factors, float]]
    """Each with its factor: ratio * alpha / rank."""
    device: torch.device
    merging: torch.dtype | None
    order: Tensor | None = None
    """Of the ranks; None: as they come."""

    @classmethod
    def of(
        cls,
        name: str,
        shares: Sequence[_Share],
        device: torch.device,
        merging: torch.dtype | None,
        shuffle: bool = False,
    ) -> _Stack:
        pairs = [(own, share.ratio * own.scale) for share in shares for own in (pair(name, share.parts),)]
        made = cls(pairs, device, merging)
        if not shuffle:
            return made
        order = torch.randperm(made.rank, generator=keyed.generator(0, "shuffle", name))
        return replace(made, order=order.to(device))

    @property
    def rank(self) -> int:
        return sum(own.down.shape[0] for own, _ in self.pairs)

    def up(self) -> Tensor:
        halves = [(own.up, math.copysign(abs(factor) ** 0.5, factor)) for own, factor in self.pairs]
        found = torch.cat([self._scaled(*half) for half in halves], 1)
        return found if self.order is None else found[:, self.order]

    def down(self) -> Tensor:
        found = torch.cat([self._scaled(own.down, abs(factor) ** 0.5) for own, factor in self.pairs])
        return found if self.order is None else found[self.order]

    def _scaled(self, tensor: Tensor, half: float) -> Tensor:
        return rounded(tensor.to(self.device, torch.float32).flatten(1) * half, self.merging)


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
    job: MergeNetworks, files: Sequence[NetworkFile], tensors: Mapping[str, Shaped]
) -> dict[str, str]:
    kept = {key: text for file in files for key, text in _identity(file)} if files else {}
    family, ranks = require_same_family(files), _ranks(tensors)
    sizes = meta.network_size(ranks, map(float, ranks), conv=_conv(job))
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


def _ranks(tensors: Mapping[str, Shaped]) -> list[int]:
    """Ranks, which are the alphas too, of modules that are no kernels larger than 1x1."""
    return [
        tensor.shape[0]
        for key, tensor in tensors.items()
        if key.endswith(".lora_down.weight") and (len(tensor.shape) == 2 or tuple(tensor.shape[2:]) == (1, 1))
    ]


def _conv(job: MergeNetworks) -> tuple[int, float] | None:
    return None if job.new_conv_rank is None else (job.new_conv_rank, float(job.new_conv_rank))
