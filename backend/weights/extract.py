"""A LoRA out of the difference of two checkpoints.

Module by module: D = tuned - original, its best approximation of the wanted rank, written as
up = U S, down = V^T, alpha = rank. Text encoders have a part in it when any of their weights
differs by more than ``min_diff``. Reading, subtracting and decomposing one module needs the memory of
that module alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from backend.errors import InputError
from backend.families.spots import Spot
from backend.weights import locon
from backend.weights import metadata as meta
from backend.weights.checkpoint import Checkpoint, open_checkpoint
from backend.weights.output import in_parallel, write_network
from backend.weights.precision import device_named, dtype_named, rounded
from backend.weights.reading import Rows
from backend.weights.report import Dropped, Part, Report, check_output
from backend.weights.streaming import Progress, silent
from backend.weights.svd import clamped, of_matrix

_ALWAYS = frozenset({"text", "attention"})
_WITH_CONV = frozenset({*_ALWAYS, "resnet", "sampler"})


Mode = Literal["fixed", "full", "threshold", "ratio", "quantile"]


@dataclass(frozen=True)
class Extract:
    """Which two models, and how large a LoRA."""

    model_org: Path
    model_tuned: Path
    save_to: Path
    dim: int = 4
    conv_dim: int | None = None
    """For kernels larger than 1x1; None leaves resnets and samplers out."""
    clamp_quantile: float = 0.99
    min_diff: float = 0.01
    exact: bool = False
    mode: Mode = "fixed"
    """How the rank of a layer is found; all but ``fixed`` decompose exactly, and ``dim`` has no part.
    ``full`` keeps the differences themselves, of norm layers and biases as well."""
    linear_value: float | None = None
    """What the mode needs, for linear layers and 1x1 convolutions."""
    conv_value: float | None = None
    """The same for larger kernels; None leaves resnets and samplers out."""
    core: bool = False
    """Split kernels' pairs once more, into a 1x1 and a core (Tucker, CP)."""
    whole_where_smaller: bool = False
    """Keep the difference itself where a pair would be about as large, as LyCORIS does."""
    sparsity: float | None = None
    """Keep all but this share of the numbers that a pair leaves out beside it; None: nothing of it."""
    load_precision: str | None = None
    """Round both models to it first; None: as stored."""
    save_precision: str | None = None
    """None: float."""
    device: str | None = None
    device_org: str | None = None
    """Where the original's weights are subtracted, and decomposed when ``device`` is not given."""
    no_metadata: bool = False
    v_prediction: bool | None = None
    """None: as the file says."""
    overwrite: bool = False


@dataclass(frozen=True)
class _Module:
    spot: Spot
    shape: tuple[int, ...]

    @property
    def rows(self) -> Rows | None:
        place, count = self.spot.share
        return None if count == 1 else (place * self.shape[0], (place + 1) * self.shape[0])

    @property
    def is_kernel(self) -> bool:
        return len(self.shape) == 4 and tuple(self.shape[2:]) != (1, 1)


@dataclass(frozen=True)
class _Pair:
    """Both models, and how their weights are read."""

    org: Checkpoint
    tuned: Checkpoint
    rounding: torch.dtype | None
    device: torch.device

    @torch.no_grad()
    def difference(self, module: _Module) -> Tensor:
        """tuned - original of one module, float32."""
        return self._read(self.tuned, module) - self._read(self.org, module)

    @torch.no_grad()
    def bias_difference(self, module: _Module) -> Tensor | None:
        """As :meth:`difference`, of the bias; None where there is none, or both are the same."""
        key = module.spot.bias
        if key not in self.org.tensors or key not in self.tuned.tensors:
            return None
        found = self._read(self.tuned, module, key) - self._read(self.org, module, key)
        return found if found.any() else None

    def _read(self, model: Checkpoint, module: _Module, key: str = "") -> Tensor:
        weight = model.tensors[key or module.spot.key].read(module.rows).to(self.device, torch.float32)
        return rounded(weight, self.rounding)


def run(job: Extract, progress: Progress = silent) -> Report:
    """Extract and write.

    Raises:
        InputError: no base models of one family and size, or there is no difference between them.
    """
    output = check_output(job.save_to, [job.model_org, job.model_tuned], job.overwrite)
    _check(job)
    device = device_named(job.device or job.device_org)
    org, tuned = open_checkpoint(job.model_org), open_checkpoint(job.model_tuned)
    _require_alike(org, tuned)
    models = _Pair(org, tuned, dtype_named(job.load_precision), device)
    modules = list(_targets(org, _with_kernels(job), job.mode == "full"))
    report = Report("extract_lora_from_models", output)
    text = [module for module in modules if module.spot.container == "text"]
    if not _text_differs(text, models, job.min_diff):
        report.notes.append(f"the text encoders differ by no more than {job.min_diff}: left out")
        modules = [module for module in modules if module.spot.container != "text"]
    tensors: dict[str, Tensor] = {}

    def work(module: _Module) -> tuple[_Module, dict[str, Tensor], Part | None]:
        return module, *_extracted(module, models, job)

    for module, found, part in in_parallel("extracting", work, modules, progress):
        if part is None:
            report.dropped.append(Dropped(module.spot.name, "no difference"))
        else:
            tensors |= found
            report.kept.append(part)
    if not tensors:
        raise InputError(
            "the models are the same; nothing to extract",
            where=f"{job.model_org} and {job.model_tuned}",
            next="check that the tuned model is the right file",
        )
    report.dropped += _left_out(models, modules, job.mode == "full")
    write_network(
        output, tensors, _metadata(job, org, report), dtype_named(job.save_precision) or torch.float32
    )
    return report


def _check(job: Extract) -> None:
    for key, rank in (("dim", job.dim), ("conv_dim", job.conv_dim)):
        if rank is not None and rank < 1:
            raise InputError(f"--{key} {rank}: a rank is at least 1", key=key)
    if job.sparsity is not None and not 0 <= job.sparsity < 1:
        raise InputError(f"--sparsity {job.sparsity}: from 0 to below 1", key="sparsity")
    if job.mode not in ("fixed", "full") and job.linear_value is None:
        raise InputError(f"the mode {job.mode} needs a value", key="linear_value")
    if not 0 < job.clamp_quantile <= 1:
        raise InputError(f"--clamp_quantile {job.clamp_quantile}: from 0 to 1", key="clamp_quantile")


def _with_kernels(job: Extract) -> bool:
    return job.mode == "full" or (job.conv_dim if job.mode == "fixed" else job.conv_value) is not None


def _require_alike(org: Checkpoint, tuned: Checkpoint) -> None:
    if org.family != tuned.family:
        raise InputError(
            f"{org.path.name} is {org.facts.title}, {tuned.path.name} is {tuned.facts.title}",
            next="extract from two models of one family",
        )
    for name, stored in org.tensors.items():
        other = tuned.tensors.get(name)
        if other is not None and _numbers(other.shape) != _numbers(stored.shape):
            one, two = list(stored.shape), list(other.shape)
            raise InputError(
                f"{name} is {one} in {org.path.name} and {two} in {tuned.path.name}",
                why="the models are of different sizes or kinds",
            )


def _numbers(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def _targets(model: Checkpoint, with_conv: bool, everything: bool = False) -> Iterator[_Module]:
    """The modules that a LoRA has, in the model's order; ``everything``: all that have a name."""
    wanted = _WITH_CONV if with_conv else _ALWAYS
    for spot in model.spots():
        shape = model.tensors[spot.key].shape
        if everything or (spot.container in wanted and len(shape) > 1):
            yield _Module(spot, (shape[0] // spot.share[1], *shape[1:]))


def _text_differs(modules: Sequence[_Module], models: _Pair, least: float) -> bool:
    return any(
        float(models.difference(module).abs().max()) > least
        for module in modules
        if module.spot.key in models.tuned.tensors
    )


def _extracted(module: _Module, models: _Pair, job: Extract) -> tuple[dict[str, Tensor], Part | None]:
    """The pair of one module, none where the models agree."""
    if module.spot.key not in models.tuned.tensors:
        raise InputError(f"{models.tuned.path.name} lacks {module.spot.key}", next="use the whole checkpoint")
    if job.mode == "full":
        return _whole(module, models)
    difference = models.difference(module)
    matrix = difference.flatten(1)
    size = float(torch.linalg.vector_norm(matrix))
    if not size:
        return {}, None
    wanted = job.conv_dim if module.is_kernel and job.conv_dim else job.dim
    most = min(module.shape[0], module.shape[1])
    found = of_matrix(matrix, min(wanted, most), exact=job.exact or job.mode != "fixed")
    rank = min(wanted if job.mode == "fixed" else _rank(found.s, module, job), most)
    name = module.spot.name
    values: dict[str, float | int | str] = {"difference": size}
    if job.whole_where_smaller and locon.saves_nothing(rank, module.shape[0]):
        return locon.whole(name, difference), Part(name, None, 0.0, values)
    up, down = clamped(found.u[:, :rank] * found.s[:rank], found.vh[:rank], job.clamp_quantile)
    tensors, made = locon.paired(name, up, down, module.shape, core=job.core)
    rest = matrix - made
    if job.sparsity is not None:
        tensors |= (kept := locon.sparse(name, rest, job.sparsity))
        rest = rest - locon.dense(name, kept, rest)
    error = float(torch.linalg.vector_norm(rest)) / size
    return tensors, Part(name, rank, error, values)


def _whole(module: _Module, models: _Pair) -> tuple[dict[str, Tensor], Part | None]:
    """The difference itself, with that of the bias where there is one."""
    difference, bias = models.difference(module), models.bias_difference(module)
    size = float(torch.linalg.vector_norm(difference))
    if not size and (bias is None or not bias.any()):
        return {}, None
    name = module.spot.name
    values: dict[str, float | int | str] = {"difference": size}
    return locon.whole(name, difference, bias), Part(name, None, 0.0, values)


def _rank(values: Tensor, module: _Module, job: Extract) -> int:
    """The rank by LyCORIS' rules: values above the threshold, above the share of the largest, or as many
    as stay below the share of their sum."""
    value = job.conv_value if module.is_kernel else job.linear_value
    assert value is not None
    if job.mode == "quantile":
        count = int((values.cumsum(0) < value * values.sum()).sum())
    else:
        count = int((values > (value if job.mode == "threshold" else value * values[0])).sum())
    return max(1, count)


def _left_out(models: _Pair, modules: Sequence[_Module], biases: bool) -> Iterator[Dropped]:
    """What differs but has no place in a LoRA of this kind."""
    done = {key for module in modules for key in (module.spot.key, *((module.spot.bias,) if biases else ()))}
    for name, stored in models.org.tensors.items():
        other = models.tuned.tensors.get(name)
        if name in done or name.startswith("first_stage_model."):
            continue
        if other is None:
            yield Dropped(name, f"{models.tuned.path.name} does not have it")
        elif stored.is_float and not torch.equal(
            stored.read(None).float().flatten(), other.read(None).float().flatten()
        ):
            yield Dropped(name, "it differs, but is no layer that this LoRA has")


def _metadata(job: Extract, org: Checkpoint, report: Report) -> dict[str, str]:
    v = org.predicts_v if job.v_prediction is None else job.v_prediction
    conv = None if job.conv_dim is None else (job.conv_dim, float(job.conv_dim))
    ranks = [job.dim] if job.mode == "fixed" else [part.rank or 0 for part in report.kept]
    found = meta.identity(org.family, {}, v) | meta.network_size(ranks, map(float, ranks), conv)
    if job.no_metadata:
        return found
    options: Mapping[str, Any] = {
        "dim": job.dim,
        "conv_dim": job.conv_dim,
        "clamp_quantile": job.clamp_quantile,
        "min_diff": job.min_diff,
        "exact": job.exact,
        "mode": job.mode,
        "linear_value": job.linear_value,
        "conv_value": job.conv_value,
        "core": job.core,
        "sparsity": job.sparsity,
    }
    used: list[tuple[Path, dict[str, Any]]] = [(job.model_org, {}), (job.model_tuned, {})]
    spec = meta.modelspec(org.family, job.save_to.stem, lora=True, v=v)
    return found | spec | meta.recipe("extract_lora_from_models", used, options)
