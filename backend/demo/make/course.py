"""A stage's course of training by time: learning rate, moving average, progress line, snapshots."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend.demo.make import snapshots
from backend.demo.make.muon import MuonAdamW

_SAY_EVERY = 20.0
"""Seconds between progress lines."""


@dataclass(frozen=True)
class Pace:
    """How long and how fast."""

    minutes: float
    """Wall time of this call; the learning rate falls to nothing over its end."""
    rate: float
    plain: float = 0.06
    """AdamW's learning rate / Muon's."""
    decay: float = 0.35
    """Share of the time over which the rate falls linearly."""
    warm: int = 50
    """Steps over which the rate rises, after every start."""
    ema: float = 0.998
    clip: float = 1.0
    steps: int | None = None
    """Stop after so many steps of this call, when the time is not out before."""
    snapshot_minutes: float = 3.0


@dataclass(frozen=True)
class Moment:
    """Where a course is."""

    step: int
    """Steps done in all calls together."""
    share: float
    """Of this call, 0 to 1."""


class Course:
    """Trains ``module`` from its newest snapshot on; ``average`` has the moving average of its weights."""

    def __init__(self, work: Path, stage: str, module: nn.Module, pace: Pace) -> None:
        self.work, self.stage, self.module, self.pace = work, stage, module, pace
        self.named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.optimizer = MuonAdamW(self.named, pace.plain)
        self.average = [p.detach().clone() for _, p in self.named]
        self.step, self.spent, self.loss = 0, 0.0, float("nan")
        self._restore()

    def _restore(self) -> None:
        state = snapshots.load(self.work, self.stage)
        if state is None:
            return
        self.module.load_state_dict(state["module"])
        if "optimizer" in state:  # a snapshot made of a finished file has none
            self.optimizer.load_state_dict(state["optimizer"])
        for own, stored in zip(self.average, state["average"], strict=True):
            own.copy_(stored)
        self.step, self.spent = state["step"], state["spent"]

    def run(self, loss_of: Callable[[Moment], Tensor]) -> None:
        """Train until time or steps of this call are out; a snapshot now and then and at the end.

        Interrupted (KeyboardInterrupt), it leaves a snapshot too.
        """
        try:
            self._loop(loss_of)
        finally:
            self.save()

    def _loop(self, loss_of: Callable[[Moment], Tensor]) -> None:
        began = said = saved = time.monotonic()
        first, before = self.step, self.spent
        while True:
            now = time.monotonic()
            share = (now - began) / (60 * self.pace.minutes)
            if self.pace.steps is not None:
                share = max(share, (self.step - first) / self.pace.steps)
            self.spent = before + (now - began) / 60
            if share >= 1:
                break
            self._one(loss_of, Moment(self.step, share), self._rate(share, self.step - first))
            if now - said > _SAY_EVERY:
                said = now
                self._say(share, first, now - began)
            if now - saved > 60 * self.pace.snapshot_minutes:
                saved = now
                self.save()
        self._say(1.0, first, time.monotonic() - began)

    def _one(self, loss_of: Callable[[Moment], Tensor], moment: Moment, rate: float) -> None:
        loss = loss_of(moment)
        loss.backward()
        nn.utils.clip_grad_norm_([p for _, p in self.named], self.pace.clip)
        self.optimizer.step(rate)
        self.optimizer.zero_grad()
        keep = min(self.pace.ema, (1 + self.step) / (10 + self.step))
        for own, (_, parameter) in zip(self.average, self.named, strict=True):
            own.lerp_(parameter.detach(), 1 - keep)
        self.step += 1
        value = loss.item()
        self.loss = value if self.loss != self.loss else self.loss + 0.02 * (value - self.loss)

    def _rate(self, share: float, steps: int) -> float:
        falling = min(1.0, (1 - share) / max(self.pace.decay, 1e-6))
        return self.pace.rate * falling * min(1.0, (steps + 1) / self.pace.warm)

    def _say(self, share: float, first: int, seconds: float) -> None:
        each = seconds / max(1, self.step - first)
        left = max(0.0, 60 * self.pace.minutes - seconds) / 60
        print(
            f"{self.stage}: step {self.step}  loss {self.loss:.4f}  {each:.3f} s a step  "
            f"{share:4.0%}  {left:.1f} min left",
            flush=True,
        )

    def save(self) -> None:
        """Write a snapshot now."""
        state: dict[str, Any] = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "spent": self.spent,
        }
        snapshots.save(self.work, self.stage, self.step, state)

    def use_average(self) -> None:
        """Put the moving average in place of the weights."""
        with torch.no_grad():
            for (_, parameter), value in zip(self.named, self.average, strict=True):
                parameter.copy_(value)
