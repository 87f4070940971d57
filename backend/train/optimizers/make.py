"""Makes the optimizer that was asked for. Each library is imported only when it is chosen."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from backend.errors import EnvironmentFault, InputError
from backend.settings.arguments import read_arguments
from backend.settings.optimizers import OptimizerKind, find, install_hint, missing_library

Groups = list[dict[str, Any]]


def parse_arguments(items: Iterable[str]) -> dict[str, Any]:
    """``["weight_decay=0.01", "betas=.9,.999"]`` -> values, as sd-scripts reads them."""
    return read_arguments(items)


def settled(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with those that sd-scripts adds to some optimizers."""
    match find(name).name:
        case "SGDNesterov" | "SGDNesterov8bit":
            return {"momentum": 0.9, **arguments}
        case "AdaFactor":
            return {"relative_step": True, **arguments}
        case _:
            return dict(arguments)


def replacement(name: str, items: Iterable[str]) -> dict[str, Any] | None:
    """Settings that train nearly the same without the optimizer's library, or None.

    Arguments that the other optimizer does not take are left out.
    """
    kind = find(name)
    if not kind.replacement:
        return None
    takes, items = find(kind.replacement).takes or (), list(items)
    kept = [item for item in items if item.partition("=")[0].strip() in takes]
    changed = {"optimizer_args": kept} if kept != items else {}
    return {"optimizer_type": kind.replacement, **changed}


def sets_own_rate(name: str, arguments: Mapping[str, Any]) -> bool:
    """True for AdaFactor with relative steps: schedule and learning rates do not apply."""
    return find(name).name == "AdaFactor" and bool(arguments.get("relative_step", True))


def make(name: str, groups: Groups, lr: float, arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
    """An optimizer over ``groups`` (each with its own ``lr``), ready to train.

    Raises:
        EnvironmentFault: its library is missing or cannot be imported.
        InputError: there is no such class, it cannot train here, the groups' rates do not suit it,
            or it does not take one of the arguments.
    """
    problem = missing_library(name)
    if problem is not None:
        raise EnvironmentFault(problem)
    kind = find(name)
    _check_rates(kind, groups)
    lr = lr or max((float(group["lr"]) for group in groups), default=0.0)
    try:
        optimizer = _create(kind, groups, lr, settled(name, arguments))
    except (InputError, EnvironmentFault):
        raise
    except Exception as error:  # libraries raise whatever they like
        raise InputError(
            f"the optimizer {kind.name} does not accept its arguments",
            why=str(error),
            next="correct optimizer_args",
            key="optimizer_args",
        ) from error
    train = getattr(optimizer, "train", None)
    if callable(train):
        train()
    return optimizer


def _create(kind: OptimizerKind, groups: Groups, lr: float, arguments: dict[str, Any]) -> Any:
    match kind.name:
        case "AdamW":
            from backend.train.quick_adamw import AdamW

            plain = {"foreach", "differentiable", "capturable"} & arguments.keys()
            return AdamW(groups, lr, **(arguments if plain else {"fused": True, **arguments}))
        case "SGDNesterov" | "SGDNesterov8bit":
            return load_class(kind)(groups, lr=lr, nesterov=True, **arguments)
        case "AdaFactor" if arguments["relative_step"]:
            bare = [{key: value for key, value in group.items() if key != "lr"} for group in groups]
            return load_class(kind)(bare, lr=None, **arguments)
        case _:
            return load_class(kind)(groups, lr=lr, **arguments)


def load_class(kind: OptimizerKind) -> Any:
    """Import an optimizer's class.

    Raises:
        EnvironmentFault: its module cannot be imported.
        InputError: there is no such class, or it is none that trains from gradients alone.
    """
    module_name, _, class_name = kind.path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a broken library may fail in any way
        raise EnvironmentFault(
            f"the library of the optimizer {kind.name} cannot be imported",
            why=f"{module_name}: {error}",
            next=f"{install_hint(module_name.partition('.')[0])}, or choose another optimizer",
            key="optimizer_type",
        ) from error
    found = getattr(module, class_name, None)
    reason = _unfit(found, module_name, class_name)
    if reason:
        raise InputError(
            f"'{kind.name}' cannot be used as an optimizer",
            why=reason,
            next="choose one of the list, or name another class",
            key="optimizer_type",
        )
    return found


def _unfit(found: Any, module_name: str, class_name: str) -> str:
    """Why a thing cannot be used as an optimizer; '' when it can."""
    if found is None:
        return f"{module_name} has no {class_name}"
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        return f"{class_name} is no torch optimizer"
    parameters = list(inspect.signature(found.step).parameters.values())[1:]
    if any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
        return f"a step of {class_name} needs more than gradients ({parameters[0].name})"
    return ""


def _check_rates(kind: OptimizerKind, groups: Groups) -> None:
    rates = {float(group["lr"]): str(group.get("name", "")) for group in groups if group["lr"]}
    if kind.one_rate and len(rates) > 1:
        listed = ", ".join(f"{name} {rate:g}" for rate, name in rates.items())
        raise InputError(
            f"{kind.name} takes one learning rate for all parts, and there are several: {listed}",
            why="it finds one step size for everything that is trained",
            next="give all parts the same learning rate, or choose another optimizer",
            key="unet_lr",
        )


def describe(optimizer: torch.optim.Optimizer, arguments: Mapping[str, Any]) -> str:
    """``torch.optim.adamw.AdamW(weight_decay=0.01)``, as stored in a LoRA's metadata."""
    kind = type(optimizer)
    if kind.__module__.startswith("backend."):
        kind = kind.__mro__[1]
    text = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{kind.__module__}.{kind.__name__}" + (f"({text})" if text else "")
