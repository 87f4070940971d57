"""A network's file (LoRA and its relatives) as merging, resizing and inspecting need it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from backend.errors import InputError, Problem
from backend.networks import NetworkSpec, loading
from backend.networks.common import by_module, fitted
from backend.networks.delta import Factors
from backend.networks.detect import NO_NETWORKS, is_network_weight, kind_of
from backend.networks.dialects import normalised
from backend.networks.files import read_lora
from backend.system import adapters
from backend.system.headers import Header, TensorInfo
from backend.system.identify import FAMILY_FACTS, FamilyName, identify
from backend.weights.dialects import in_kohya_names

Parts = Mapping[str, Tensor]
PAIR = frozenset({"lora_down.weight", "lora_up.weight", "alpha"})
LINEAR = frozenset({"diff", "diff_b", "w_norm", "b_norm"})
"""Parts that are themselves what is added."""
_ON_WEIGHT = (
    ("dora_scale", "DoRA"),
    ("oft_blocks", "OFT"),
    ("on_input", "IA3"),
    ("a1.weight", "GLoRA"),
)
"""Parts of kinds whose change depends on the weight it is added to."""


@dataclass(frozen=True)
class NetworkFile:
    """The weights of one file, module by module, in kohya's names."""

    path: Path
    kind: str
    """In words: LoRA, LoHa, ..."""
    family: str
    """``sd1``, ...; ``unknown`` when the file does not say."""
    modules: Mapping[str, Parts]
    """Module name without ``lora_`` or ``oft_`` -> part -> tensor."""
    metadata: Mapping[str, str]
    dtype: torch.dtype

    @property
    def title(self) -> str:
        """The family in words."""
        return FAMILY_FACTS[cast("FamilyName", self.family)].line

    def pairs(self) -> dict[str, Factors]:
        """The modules that are a plain pair of up and down."""
        return {name: pair(name, parts) for name, parts in self.modules.items() if is_pair(parts)}


def open_network(path: Path) -> NetworkFile:
    """Read a network's file, of any kind and dialect.

    Raises:
        InputError: missing, damaged, or no network; the message says what it is.
    """
    tensors, metadata = read_lora(path)
    weights = normalised(in_kohya_names(tensors))
    kind = kind_of(weights)
    odd = next((name for name in weights if not is_network_weight(name)), None)
    if kind is None or kind in NO_NETWORKS or odd is not None:
        raise _no_network(path, kind, odd)
    modules = {re.sub(r"^(?:lora|oft)_", "", name): parts for name, parts in by_module(weights).items()}
    floats = [tensor.dtype for tensor in weights.values() if tensor.is_floating_point()]
    common = max(set(floats), key=floats.count) if floats else torch.float32
    return NetworkFile(path, kind, _family(weights, metadata), modules, metadata, common)


def _no_network(path: Path, kind: str | None, odd: str | None) -> InputError:
    if kind is None or kind in NO_NETWORKS:
        found = identify(path)
        what = f"this is {_article(found.title)} {found.title}, not a LoRA"
    else:
        what = f"a {kind} of a layout that is not known here (it has {odd})"
    return InputError(Problem(what, where=str(path), next="choose a LoRA file"))


def _article(title: str) -> str:
    return "an" if title[:1].lower() in "aeiou" or title[:2] == "SD" else "a"


def _family(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    table = {name: TensorInfo("F32", tuple(tensor.shape)) for name, tensor in weights.items()}
    found = adapters.describe(Header(Path(), table, metadata))
    return found.family if found else "unknown"


def is_pair(parts: Parts) -> bool:
    """Whether a module's parts are an up and a down weight and nothing else but alpha."""
    return parts.keys() <= PAIR and {"lora_down.weight", "lora_up.weight"} <= parts.keys()


def pair(name: str, parts: Parts) -> Factors:
    """A plain pair. No alpha, or 0, counts as the rank.

    Raises:
        InputError: the two do not fit each other.
    """
    down, up, alpha = parts["lora_down.weight"], parts["lora_up.weight"], parts.get("alpha")
    if up.dim() < 2 or up.shape[1] != down.shape[0] or up[0, 0].numel() != 1:
        raise InputError(f"{name}: up {list(up.shape)} and down {list(down.shape)} do not fit each other")
    return Factors(down, up, float(0 if alpha is None else alpha) or float(down.shape[0]))


def on_weight_kind(parts: Parts) -> str | None:
    """The kind in words when the change depends on the weight it is added to, else None."""
    return next((kind for part, kind in _ON_WEIGHT if part in parts), None)


@dataclass(frozen=True)
class _Site:
    name: str
    module: nn.Module
    part: str = "unet"
    container: str = "attention"


@torch.no_grad()
def change_of(name: str, parts: Parts, weight: Tensor, has_bias: bool) -> tuple[Tensor, Tensor | None]:
    """What a module of any kind adds to ``weight`` and to the bias, at strength 1, float32.

    Args:
        weight: the module's own weight in float32: (out, in), (out, in, k, k), or (n,) of a norm.

    Raises:
        InputError: the weights do not fit that module.
    """
    if parts.keys() <= {"w_norm", "b_norm"} and weight.dim() == 1:
        host: nn.Module = nn.LayerNorm(weight.shape[0], elementwise_affine=True)
        host.weight = nn.Parameter(weight, requires_grad=False)
    else:
        host = _host(weight, has_bias)
    prefix = "oft_" if "oft_blocks" in parts else "lora_"
    flat = {f"{prefix}{name}.{part}": tensor for part, tensor in parts.items()}
    network = loading.load(flat, [_Site(name, host)], NetworkSpec(), "networks.lora")
    (adapter,) = network.adapters().values()
    return adapter.weight_delta().reshape(weight.shape), adapter.bias_delta()


def _host(weight: Tensor, has_bias: bool) -> nn.Module:
    """A layer that holds ``weight``, without memory of its own."""
    with torch.device("meta"):
        if weight.dim() == 2:
            host: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)
        else:
            kernel = cast("tuple[int, int]", tuple(weight.shape[2:]))
            host = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, bias=has_bias)
    host.weight = nn.Parameter(weight, requires_grad=False)
    return host


def shape_of_change(parts: Parts) -> tuple[int, ...] | None:
    """The shape of the weight that a change goes to, when the parts tell (those that need no weight)."""
    if is_pair(parts):
        up, down = parts["lora_up.weight"], parts["lora_down.weight"]
        return (up.shape[0], *down.shape[1:])
    if "diff" in parts:
        return tuple(parts["diff"].shape)
    return None


def check_fit(file: NetworkFile, name: str, shape: Sequence[int]) -> None:
    """Raises:
    InputError: the file's change for the module is for a weight of another shape.
    """
    found = shape_of_change(file.modules[name])
    if found is None or fitted(torch.empty(found, device="meta"), shape) is not None:
        return
    raise InputError(
        f"{file.path.name} was made for another model: {name} is for a weight of {list(found)}, "
        f"the model has {list(shape)}",
        where=str(file.path),
        next="choose a LoRA made for this model",
    )


def require_same_family(files: Iterable[NetworkFile]) -> str:
    """The family of all files; files that do not say go with the others.

    Raises:
        InputError: two of them are of different families; both are named.
    """
    known = [file for file in files if file.family != "unknown"]
    for other in known[1:]:
        if other.family != known[0].family:
            raise InputError(
                f"{known[0].path.name} is a {known[0].kind} for {known[0].title}, "
                f"{other.path.name} is a {other.kind} for {other.title}",
                why="their layers are not the same, so they cannot be put together",
                next="merge files of one family only",
            )
    return known[0].family if known else "unknown"
