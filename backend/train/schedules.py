"""Learning-rate schedules as functions of the absolute step.

A schedule has no state: the factor of step k is computed from k. So it is the same after a resume,
and a plot of it costs nothing. Step 0 is the first optimizer step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Name and numbers of a schedule. ``warmup`` and ``total`` are optimizer steps."""

    name: str
    total: int
    warmup: int = 0
    cycles: int = 1

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied by at ``step``."""
        if step < self.warmup and self.name != "constant":
            return step / max(1, self.warmup)
        return _SHAPES[self.name](self, step)

    def progress(self, step: int) -> float:
        """Share of the part after the warm-up that is done, 0 to 1."""
        return min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))


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


_SHAPES: dict[str, Callable[[Schedule, int], float]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
}


def warmup_steps(value: int | float, total: int) -> int:
    """Whole warm-up steps of an option that may be a share of all steps."""
    return int(value * total) if value < 1 else int(value)
