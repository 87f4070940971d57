"""Notices when steps take many times as long as before, which a full card does without a word."""

from __future__ import annotations

import statistics
from collections import deque

import torch

from backend.errors import Problem
from backend.jobs.events import Sink

SLOWER = 5.0
"""Times as long as usual that is told."""
_ENOUGH = 5
"""Measurements before there is a usual."""
_LOST_SECONDS = 2.0
"""Less time lost than this is told by nobody."""
_MOST = 3
"""Warnings of one run."""
_FULL = 0.03
"""Share of a card's memory that is free when it counts as full."""


class Pace:
    """Compares what steps take with what they took before."""

    def __init__(self, events: Sink) -> None:
        self._events = events
        self._usual: deque[float] = deque(maxlen=50)
        self._slow = False
        self._told = 0

    def look(self, step: int, count: int, seconds: float) -> None:
        """``count`` steps up to ``step`` took ``seconds`` each."""
        usual = statistics.median(self._usual) if len(self._usual) >= _ENOUGH else None
        if usual is None or seconds < SLOWER * usual or (seconds - usual) * count < _LOST_SECONDS:
            self._usual.append(seconds)
            self._slow = False
            return
        if not self._slow and self._told < _MOST:
            self._told += 1
            problem = slow(step, seconds, usual, _card_is_full())
            self._events.emit("warning", text=problem.text(), problem=problem.as_dict())
        self._slow = True


def slow(step: int, seconds: float, usual: float, full: bool) -> Problem:
    """What is said of a step that took ``seconds`` where ``usual`` was expected."""
    if full:
        why = "the card's memory is full, so its driver may keep a part in the computer's memory"
        advice = "end other programs that use the card, or turn on gradient_checkpointing or a smaller batch"
    else:
        why = "another program may use the card or the processor, or the pictures come slowly from their disk"
        advice = "look what else is running; the training goes on"
    return Problem(
        f"a step took {seconds:.1f} s, {seconds / usual:.0f} times as long as usual",
        where=f"step {step}",
        why=why,
        next=advice,
    )


def _card_is_full() -> bool:
    if not torch.cuda.is_available():
        return False
    free, total = torch.cuda.mem_get_info()
    return free < _FULL * total
