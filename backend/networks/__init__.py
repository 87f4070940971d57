"""Networks: small sets of weights that change what a model does, trained while the model is frozen.

A kind is one module of this package with ``create``, registered below under the name that
sd-scripts gives it; ``kinds`` holds the adapters they are made of, ``loading`` makes any of them
from a file. Modules are imported when they are first needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, NoReturn, cast

from torch import Tensor

from backend.errors import InputError, Problem
from backend.networks.base import Attachable, Network, NetworkSpec
from backend.networks.detect import NO_NETWORKS, family_of, is_network_weight, kind_of
from backend.networks.dialects import normalised
from backend.networks.files import read_lora

_MODULES = {
    "networks.lora": "backend.networks.lora",
    "networks.lora_fa": "backend.networks.lora_fa",
    "networks.dylora": "backend.networks.dylora",
    "networks.oft": "backend.networks.oft",
    "lycoris.kohya": "backend.networks.lycoris",
}

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
    module: str | None = None,
) -> Network:
    """The network that a file's weights describe, loaded, not yet attached.

    The kind is found from the names, module by module; every module takes its rank and alpha from
    the file. Names that fit no module are in the network's ``unused``. Of ``spec`` only dropouts,
    LoRA+'s ratios and DyLoRA's unit count. ``module`` is the ``network_module`` that goes on
    training; None is for use as it is.

    Raises:
        InputError: the file is no network, of a kind that cannot be used, or for another family.
    """
    from backend.networks import loading

    weights, modules = normalised(weights), list(modules)
    kind = require_fit(weights, modules)
    if module is not None:
        loading.require_suited(module, kind)
    network = loading.load(weights, modules, spec or NetworkSpec(), module or "networks.lora")
    return cast("Network", network)


def require_fit(weights: Mapping[str, Tensor], modules: Iterable[Attachable]) -> str:
    """The kind of a file's weights, when it is one that can be used on ``modules``.

    To be called before weights go into a network of a size of its own, too: there, names that fit
    nothing are only reported.

    Raises:
        InputError: the file is no network, of a kind that cannot be used, or for another family.
    """
    weights = normalised(weights)
    kind = kind_of(weights)
    odd = next((name for name in weights if not is_network_weight(name)), None)
    if kind is None or kind in NO_NETWORKS or odd is not None:
        _refuse_kind(kind, odd)
    _check_family(weights, list(modules))
    return kind


def _refuse_kind(kind: str | None, odd: str | None) -> NoReturn:
    if kind in NO_NETWORKS:
        what = f"this is a {kind}, not a LoRA"
    else:
        what = f"not a LoRA of a layout known here (it has {odd})" if odd else "the file holds no tensors"
    raise InputError(Problem(what, next="choose a LoRA file"))


_WIDTHS = frozenset({"lora_down.weight", "a2.weight", "diff"})
"""Parts whose second side is as wide as the module's input."""


def _check_family(weights: Mapping[str, Tensor], modules: list[Attachable]) -> None:
    """Refuse a file that has no module in common with the model, or one of another width."""
    file: dict[str, tuple[int, ...]] = {}
    for key, tensor in weights.items():
        name, _, part = re.sub(r"^(?:lora|oft)_", "", key).partition(".")
        shape = tuple(tensor.shape) if part in _WIDTHS else ()
        if shape or name not in file:
            file[name] = shape
    model = {site.name: tuple(cast("Any", site.module).weight.shape) for site in modules}
    shared = file.keys() & model.keys()
    known = [name for name in shared if len(file[name]) > 1 and len(model[name]) > 1]
    if shared and all(file[name][1] == model[name][1] for name in known):
        return
    theirs, ours = family_of(file), family_of(model)
    whom = f"this LoRA is for {theirs}" if theirs else "this LoRA is for a model of a kind unknown here"
    if theirs == ours:
        other = "is for a model of other sizes" if shared else "has nothing for the parts that are used here"
        raise InputError(Problem(f"this LoRA {other}", next="choose a LoRA made for this model"))
    raise InputError(
        Problem(f"{whom}; the model is {ours or 'another'}", next="choose a LoRA made for this model")
    )
