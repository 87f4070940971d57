"""A schedule that is a class: one of ``torch.optim.lr_scheduler``, or any ``module.Class``.

Such a class keeps a state and steps an optimizer. It steps a stand-in here, which has the groups of
the real one and no weights, and what it did is copied. So the rates of step k follow from k alone:
after a resume the class is stepped anew up to k.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from backend.errors import InputError, Problem
from backend.settings.arguments import read_arguments
from backend.settings.sections import ScheduleSettings

_MOVES = ("lr", "betas", "momentum", "weight_decay")
"""What schedules change in an optimizer's groups."""


class StandIn(torch.optim.Optimizer):
    """The groups of an optimizer over one number each, so that a schedule has something to step."""

    def __init__(self, defaults: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
        mine = [
            {
                **{key: value for key, value in group.items() if key != "params"},
                "params": [torch.nn.Parameter(torch.zeros(()))],
            }
            for group in groups
        ]
        super().__init__(mine, dict(defaults))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nothing: there is nothing to train."""


class ClassSchedule:
    """Rates as a scheduler class makes them."""

    def __init__(
        self,
        section: ScheduleSettings,
        total: int,
        optimizer: torch.optim.Optimizer,
        rates: Sequence[float],
    ) -> None:
        """``total``: optimizer steps. ``rates``: base rate of each group of ``optimizer``.

        Raises:
            InputError: there is no such class, or it does not take its arguments.
        """
        self._name = section.lr_scheduler_type
        self._make = load_class(self._name)
        self._given = read_arguments(section.lr_scheduler_args)
        self._total = total
        self._defaults = dict(optimizer.defaults)
        first = {key: self._defaults[key] for key in _MOVES if key in self._defaults}
        self._groups = [
            {key: first.get(key, value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        self._restart(rates)

    def apply(self, groups: Sequence[dict[str, Any]], rates: Sequence[float], step: int) -> None:
        """Give each optimizer group what the class gives it at ``step``."""
        if step < self._step:
            self._restart(rates)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while self._step < step:
                self._stand_in.step()
                self._scheduler.step()
                self._step += 1
        for group, moved in zip(groups, self._stand_in.param_groups, strict=True):
            group.update({key: moved[key] for key in _MOVES if key in group and key in moved})

    def _restart(self, rates: Sequence[float]) -> None:
        groups = [{**group, "lr": rate} for group, rate in zip(self._groups, rates, strict=True)]
        self._stand_in = StandIn(self._defaults, groups)
        self._step = 0
        arguments = self._arguments(rates)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._scheduler: Any = self._make(self._stand_in, **arguments)
        except Exception as error:  # classes raise whatever they like
            raise InputError(
                f"the schedule {self._name} does not accept its arguments",
                why=str(error),
                next="correct lr_scheduler_args",
                key="lr_scheduler_args",
            ) from error

    def _arguments(self, rates: Sequence[float]) -> dict[str, Any]:
        """What was given, and what the run itself can answer."""
        known = {"T_max": self._total, "total_steps": self._total, "max_lr": list(rates)}
        wanted = inspect.signature(self._make).parameters
        return {key: value for key, value in known.items() if key in wanted} | self._given


def load_class(name: str) -> Any:
    """Import a scheduler class.

    Raises:
        InputError: there is none, or it needs more than a count of steps.
    """
    module_name, _, class_name = (name if "." in name else f"torch.optim.lr_scheduler.{name}").rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except Exception as error:  # a broken library may fail in any way
        raise InputError(_problem(name, f"{module_name} cannot be imported: {error}")) from error
    if not isinstance(found, type) or not callable(getattr(found, "step", None)):
        raise InputError(_problem(name, f"{module_name} has no schedule {class_name}"))
    parameters = list(inspect.signature(found.step).parameters.values())[1:]  # type: ignore[attr-defined]
    if any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
        raise InputError(_problem(name, f"its step needs a measured value ({parameters[0].name})"))
    return found


def _problem(name: str, why: str) -> Problem:
    return Problem(
        f"'{name}' cannot be used as a schedule",
        why=why,
        next="name a class of torch.optim.lr_scheduler, or leave lr_scheduler_type empty",
        key="lr_scheduler_type",
    )
