"""Turns the tensors of each step into events, synchronising with the device only now and then."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from backend.data.types import Picture
from backend.errors import Problem, RunFault
from backend.jobs.events import Sink
from backend.settings.length import Length
from backend.train.losses import LossTable
from backend.train.pace import Pace
from backend.train.team import Team

FLUSH_SECONDS = 0.5
SKIPS_ALLOWED = 20
"""Steps in a row that an fp16 gradient scaler may leave out while it looks for its scale."""


class Losses(NamedTuple):
    """Losses of single pictures and their noise levels, each (B,), on the device."""

    losses: Tensor
    timesteps: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Losses]) -> Losses:
        """The pictures of all parts, in order."""
        return cls(torch.cat([part.losses for part in parts]), torch.cat([part.timesteps for part in parts]))


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step leaves behind; tensors stay on the device until the next flush."""

    step: int
    epoch: int
    loss: Tensor
    """Mean loss of the step, 0-d."""
    grad_norm: Tensor
    """L2 norm of the gradients before clipping, 0-d."""
    rates: Mapping[str, float | Tensor]
    pictures: tuple[Picture, ...]
    """What was learnt from, in the order of ``each``."""
    each: Losses


class Meter:
    """Collects step records and writes them as ``step`` events.

    A flush happens at most every half second: the only place of the loop that waits for the device.
    """

    def __init__(
        self, events: Sink, length: Length, batch_size: int, table: LossTable, scaled: bool = False
    ) -> None:
        """``scaled``: an fp16 gradient scaler leaves out steps whose gradients overflow."""
        self._events, self._length, self._batch_size = events, length, batch_size
        self.table = table
        self._scaled, self._skipped = scaled, 0
        self._pending: list[StepRecord] = []
        self._recent: deque[float] = deque(maxlen=max(1, min(length.steps_per_epoch, 1000)))
        self._flushed = self._started = time.perf_counter()
        self._paused = 0.0
        self._pace = Pace(events)
        self.last_loss = math.nan

    @property
    def average(self) -> float:
        """Mean loss of the last epoch's worth of steps."""
        return sum(self._recent) / len(self._recent) if self._recent else math.nan

    @contextmanager
    def pause(self) -> Generator[None, None, None]:
        """Leave the time of the block (saving, sampling) out of the speed."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start

    def add(self, record: StepRecord) -> None:
        self._pending.append(record)
        if time.perf_counter() - self._flushed >= FLUSH_SECONDS or record.step == self._length.steps:
            self.flush()

    def gather(self, team: Team) -> None:
        """Bring what all processes know of single pictures to the main one; all call it at one step."""
        if team.size > 1:
            self.flush()
            self.table.collect(team)

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            RunFault: a loss or gradient is not finite; names step, pictures and a likely cause.
        """
        if not self._pending:
            return
        numbers = torch.cat([_numbers(record) for record in self._pending]).cpu().tolist()
        now = time.perf_counter()
        seconds = max(1e-9, now - self._flushed - self._paused) / len(self._pending)
        self._flushed, self._paused = now, 0.0
        records, self._pending = self._pending, []
        self._pace.look(records[-1].step, len(records), seconds)
        for record in records:
            count = len(record.pictures)
            (loss, norm), rest = numbers[:2], numbers[2 : 2 + 2 * count]
            del numbers[: 2 + 2 * count]
            self._write(record, loss, norm, seconds)
            self.table.add([picture.id for picture in record.pictures], rest[:count], rest[count:])

    def _write(self, record: StepRecord, loss: float, norm: float, seconds: float) -> None:
        if not self._counts(loss, norm):
            raise RunFault(not_finite(record, loss, norm))
        self._recent.append(loss)
        self.last_loss = loss
        self._events.emit(
            "step",
            step=record.step,
            total=self._length.steps,
            epoch=record.epoch,
            epochs=self._length.epochs,
            loss=round(loss, 6),
            average=round(self.average, 6),
            lr={name: float(f"{float(rate):.4g}") for name, rate in record.rates.items()},
            grad_norm=round(norm, 6),
            seconds=round(seconds, 4),
            images_per_second=round(self._batch_size / seconds, 3),
            memory=_peak_memory(),
        )

    def _counts(self, loss: float, norm: float) -> bool:
        """True for a step that is in order, or one that the gradient scaler left out."""
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        return math.isfinite(loss) and (
            math.isfinite(norm) or (self._scaled and self._skipped <= SKIPS_ALLOWED)
        )


def not_finite(record: StepRecord, loss: float, norm: float) -> Problem:
    """What to say when a loss or gradient is NaN or infinite."""
    rates = ", ".join(f"{name} {float(rate):g}" for name, rate in record.rates.items())
    names = ", ".join(picture.path.name for picture in record.pictures[:8])
    return Problem(
        f"the loss is not a number any more (loss {loss:g}, gradient norm {norm:g})",
        where=f"step {record.step}",
        why=f"pictures of this step: {names}; learning rates: {rates}",
        next="use a lower learning rate, or bf16 or no mixed precision; "
        "the last file saved before this step is the result",
    )


def _numbers(record: StepRecord) -> Tensor:
    """Loss, norm, losses and timesteps of a step in one row: one copy from the device for all."""
    whole = torch.stack([record.loss.float(), record.grad_norm.float()])
    return torch.cat([whole, record.each.losses.float(), record.each.timesteps.float()])


def _peak_memory() -> int:
    """Peak device memory in bytes; 0 on a processor."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
