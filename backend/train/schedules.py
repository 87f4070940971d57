"""Learning-rate schedules as functions of the absolute step.

A schedule has no state: the factor of step k is computed from k. So it is the same after a resume,
and a plot of it costs nothing. Step 0 is the first optimizer step; steps of several processes are
not counted apart. Shapes and defaults are those of transformers and diffusers, as sd-scripts has
them, but for REX (Chen et al. 2022, "REX: Revisiting Budgeted Training with an Improved Schedule").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.errors import InputError
from backend.settings.arguments import read_arguments
from backend.settings.schedules import WITHOUT_WARMUP
from backend.settings.sections import ScheduleSettings

Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Schedule:
    """Name and numbers of a schedule. ``warmup``, ``decay`` and ``total`` are optimizer steps."""

    name: str
    total: int
    warmup: int = 0
    decay: int = 0
    cycles: int = 1
    power: float = 1.0
    timescale: int | None = None
    min_ratio: float | None = None
    peak: float = 1e-4
    """The learning rate that ``lr_end`` and ``min_lr`` are shares of."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """``lr_scheduler_args``."""

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied by at ``step``."""
        if step < self.warmup and self.name not in WITHOUT_WARMUP:
            return _RISES.get(self.name, _rise)(self, step / max(1, self.warmup))
        return _SHAPES[self.name](self, step)

    def apply(self, groups: Groups, rates: Sequence[float], step: int) -> None:
        """Give each optimizer group its learning rate for ``step`` out of its base rate."""
        factor = self.factor(step)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor

    def progress(self, step: int) -> float:
        """Share of the part after the warm-up that is done, 0 to 1."""
        return min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))

    @property
    def lowest(self) -> float:
        """The factor below which the rate does not fall, of schedules that have one."""
        if "min_lr" in self.arguments:
            return float(self.arguments["min_lr"]) / self.peak
        return float(self.arguments.get("min_lr_rate", self.min_ratio or 0.0))


def _rise(schedule: Schedule, share: float) -> float:
    return share


def _constant(schedule: Schedule, step: int) -> float:
    return 1.0


def _linear(schedule: Schedule, step: int) -> float:
    return 1.0 - schedule.progress(step)


def _cosine(schedule: Schedule, step: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * schedule.progress(step)))


def _cosine_with_restarts(schedule: Schedule, step: int) -> float:
    progress = schedule.progress(step)
    if progress >= 1.0:
        return 0.0
    return 0.5 * (1.0 + math.cos(math.pi * ((schedule.cycles * progress) % 1.0)))


def _polynomial(schedule: Schedule, step: int) -> float:
    """From 1 down to ``lr_end``, 1e-7 by default."""
    end = min(1.0, float(schedule.arguments.get("lr_end", 1e-7)) / schedule.peak)
    return (1.0 - end) * (1.0 - schedule.progress(step)) ** schedule.power + end


def _inverse_sqrt(schedule: Schedule, step: int) -> float:
    timescale = schedule.timescale or schedule.warmup or 10_000
    return 1.0 / math.sqrt((step + timescale - schedule.warmup) / timescale)


def _cosine_with_min_lr(schedule: Schedule, step: int) -> float:
    """``cycles`` half waves down to the lowest rate; 1 ends there."""
    wave = 0.5 * (1.0 + math.cos(math.pi * schedule.cycles * schedule.progress(step)))
    return wave * (1.0 - schedule.lowest) + schedule.lowest


_FALLS: Mapping[str, Callable[[float, int], float]] = {
    "linear": lambda share, cycles: 1.0 - share,
    "cosine": lambda share, cycles: 0.5 * (1.0 + math.cos(math.pi * cycles * share)),
    "1-sqrt": lambda share, cycles: 1.0 - math.sqrt(share),
}
"""``decay_type`` of warmup_stable_decay; its ``warmup_type`` is the same from the other end."""


def _warmup_of_stable_decay(schedule: Schedule, share: float) -> float:
    shape = str(schedule.arguments.get("warmup_type", "linear"))
    rise = 1.0 - math.sqrt(1.0 - share) if shape == "1-sqrt" else 1.0 - _FALLS[shape](share, 1)
    return rise * (1.0 - schedule.lowest) + schedule.lowest


def _warmup_stable_decay(schedule: Schedule, step: int) -> float:
    """Constant until the last ``decay`` steps (Hu et al. 2024, "MiniCPM")."""
    start = schedule.total - schedule.decay
    if step < start:
        return 1.0
    if step >= schedule.total:
        return schedule.lowest
    shape = str(schedule.arguments.get("decay_type", "cosine"))
    fall = _FALLS[shape]((step - start) / max(1, schedule.decay), schedule.cycles)
    return fall * (1.0 - schedule.lowest) + schedule.lowest


def _rex(schedule: Schedule, step: int) -> float:
    """(1 - t) / (1/2 + (1 - t) / 2) with t the share done: slower than linear at first, then faster."""
    left = 1.0 - schedule.progress(step)
    return left / (0.5 + 0.5 * left)


def _piecewise_constant(schedule: Schedule, step: int) -> float:
    ends, last = read_pieces(str(schedule.arguments["step_rules"]))
    return next((factor for end, factor in ends if step < end), last)


_SHAPES: Mapping[str, Callable[[Schedule, int], float]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "warmup_stable_decay": _warmup_stable_decay,
    "rex": _rex,
    "piecewise_constant": _piecewise_constant,
}
_RISES: Mapping[str, Callable[[Schedule, float], float]] = {"warmup_stable_decay": _warmup_of_stable_decay}


def read_pieces(rules: str) -> tuple[list[tuple[int, float]], float]:
    """``"1:10,0.1:20,0.005"`` -> ([(10, 1.0), (20, 0.1)], 0.005): steps that a factor ends at, and the last.

    Raises:
        ValueError: it is written otherwise.
    """
    *pairs, last = rules.split(",")
    split = [pair.split(":") for pair in pairs]
    ends = sorted((int(end), float(factor)) for factor, end in split)
    return ends, float(last)


def whole_steps(value: int | float, total: int) -> int:
    """Whole steps of an option that may be a share of all steps."""
    return int(value * total) if value < 1 else int(value)


def schedule_of(section: ScheduleSettings, total: int, peak: float) -> Schedule:
    """The schedule that the settings name, over ``total`` optimizer steps.

    Args:
        peak: the learning rate, for schedules that end at a rate of their own.

    Raises:
        InputError: its arguments do not fit.
    """
    schedule = Schedule(
        section.lr_scheduler,
        total,
        warmup=whole_steps(section.lr_warmup_steps, total),
        decay=whole_steps(section.lr_decay_steps, total),
        cycles=section.lr_scheduler_num_cycles,
        power=section.lr_scheduler_power,
        timescale=section.lr_scheduler_timescale,
        min_ratio=section.lr_scheduler_min_lr_ratio,
        peak=peak,
        arguments=read_arguments(section.lr_scheduler_args),
    )
    if schedule.name == "warmup_stable_decay" and schedule.warmup + schedule.decay > total:
        raise InputError(
            f"warm-up ({schedule.warmup}) and decay ({schedule.decay}) together are longer than the run "
            f"({total} steps)",
            next="lower lr_warmup_steps or lr_decay_steps",
            key="lr_decay_steps",
        )
    try:
        for step in (0, schedule.warmup, total - 1):
            schedule.factor(step)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the schedule {schedule.name} does not accept its arguments",
            why=f"{', '.join(section.lr_scheduler_args)}: {error}",
            next="correct lr_scheduler_args",
            key="lr_scheduler_args",
        ) from error
    return schedule
