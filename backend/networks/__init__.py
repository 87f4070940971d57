"""Networks: small sets of weights that change what a model does, trained while the model is frozen.

A kind is one module of this package with ``create`` and ``from_weights``, registered below under
the name that sd-scripts gives it. Modules are imported when they are first needed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, NoReturn, cast

from torch import Tensor

from backend.errors import InputError, Problem
from backend.networks.base import Attachable, Network, NetworkSpec
from backend.networks.detect import family_of, is_plain_lora, kind_of
from backend.networks.dialects import normalised
from backend.networks.files import read_lora

_MODULES = {"networks.lora": "backend.networks.lora"}
_KINDS = {"LoRA": "backend.networks.lora"}

__all__ = [
    "Attachable",
    "Network",
    "NetworkSpec",
    "create",
    "from_weights",
    "known_modules",
    "read_lora",
    "require_fit",
]


def known_modules() -> tuple[str, ...]:
    """Names that ``network_module`` may have."""
    return tuple(_MODULES)


def create(module: str, modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> Network:
    """A new network of the kind ``module`` (sd-scripts' name) on a model's modules, not yet attached.

    Raises:
        InputError: unknown kind, or arguments that the kind does not take.
    """
    if module not in _MODULES:
        near = difflib.get_close_matches(module, _MODULES, 1)
        raise InputError(
            Problem(
                f"unknown network_module {module}",
                why=f"known: {', '.join(_MODULES)}",
                next=f"did you mean {near[0]}?" if near else "choose one of these",
                key="network_module",
            )
        )
    return cast("Network", import_module(_MODULES[module]).create(modules, spec, seed=seed))


def from_weights(
    weights: Mapping[str, Tensor],
    modules: Iterable[Attachable],
    spec: NetworkSpec | None = None,
) -> Network:
    """The network that a file's weights describe, loaded, not yet attached.

    The kind is found from the names; every module takes its rank and alpha from the file. Names that
    fit no module are in the network's ``unused``. Of ``spec`` only the dropouts count.

    Raises:
        InputError: the file is no network, of a kind that cannot be used, or for another family.
    """
    weights, modules = normalised(weights), list(modules)
    kind = require_fit(weights, modules)
    made = import_module(_KINDS[kind]).from_weights(weights, modules, spec or NetworkSpec())
    return cast("Network", made)


def require_fit(weights: Mapping[str, Tensor], modules: Iterable[Attachable]) -> str:
    """The kind of a file's weights, when it is one that can be used on ``modules``.

    To be called before weights go into a network of a size of its own, too: there, names that fit
    nothing are only reported.

    Raises:
        InputError: the file is no network, of a kind that cannot be used, or for another family.
    """
    weights = normalised(weights)
    kind = kind_of(weights)
    if kind not in _KINDS or not is_plain_lora(weights):
        _refuse_kind(kind, weights)
    _check_family(weights, list(modules))
    return kind


def _refuse_kind(kind: str | None, weights: Mapping[str, Tensor]) -> NoReturn:
    if kind is None or kind in _KINDS:
        odd = next((name for name in weights if not is_plain_lora([name])), "")
        what = f"not a LoRA of a layout known here (it has {odd})" if odd else "the file holds no tensors"
    elif kind in ("base model", "VAE", "textual inversion embedding"):
        what = f"this is a {kind}, not a LoRA"
    else:
        what = f"this is a network of the kind {kind}, which cannot be used here"
    raise InputError(Problem(what, next="choose a LoRA file"))


def _check_family(weights: Mapping[str, Tensor], modules: list[Attachable]) -> None:
    """Refuse a file that has no module in common with the model, or one of another width."""
    down = ".lora_down.weight"
    file = {
        key.removesuffix(down).removeprefix("lora_"): tuple(tensor.shape)
        for key, tensor in weights.items()
        if key.endswith(down)
    }
    model = {site.name: tuple(cast("Any", site.module).weight.shape) for site in modules}
    shared = file.keys() & model.keys()
    if shared and all(file[name][1] == model[name][1] for name in shared):
        return
    theirs, ours = family_of(file), family_of(model)
    whom = f"this LoRA is for {theirs}" if theirs else "this LoRA is for a model of a kind unknown here"
    if theirs == ours:
        other = "is for a model of other sizes" if shared else "has nothing for the parts that are used here"
        raise InputError(Problem(f"this LoRA {other}", next="choose a LoRA made for this model"))
    raise InputError(
        Problem(f"{whom}; the model is {ours or 'another'}", next="choose a LoRA made for this model")
    )
