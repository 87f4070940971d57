"""Steps of weights in bfloat16 that do not get lost.

A bfloat16 number has 8 bits, so a change below 1/256 of a weight vanishes when it is rounded to the nearest,
which is most changes of a training. Rounding up or down by chance, as likely as the number is near either
side, keeps them on average (Gupta et al. 2015, "Deep Learning with Limited Numerical Precision"; Zamirai
et al. 2020, "Revisiting BFloat16 Training"). The optimizer sees float32 weights and gradients for the
moment of its step, a few at a time, and keeps its memory in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from backend import keyed
from backend.settings.optimizers import find

_LOW = 0xFFFF
"""The bits of a float32 that a bfloat16 lacks."""
CHUNK = 1 << 24
"""Numbers that are in float32 at a time, where an optimizer looks at weights one by one."""


def stochastically(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """float32 -> bfloat16, up or down by chance so that the mean is right.

    What a bfloat16 can hold, zeros and infinite values included, stays as it is.
    """
    assert values.dtype == torch.float32, values.dtype
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(0, _LOW + 1, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    # Adding to the lower half carries into the upper one as often as the lower half is large.
    rounded = (bits + noise).bitwise_and_(~_LOW).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


class Rounding:
    """What an optimizer needs to step weights in bfloat16. Randomness is keyed by step and weight."""

    def __init__(self, optimizer: torch.optim.Optimizer, seed: int, one_by_one: bool) -> None:
        """``one_by_one``: the optimizer looks at no two weights together."""
        self._optimizer, self._seed, self._one_by_one = optimizer, seed, one_by_one
        self._index = {id(w): index for index, w in enumerate(_weights(optimizer))}
        self._at = 0

    def at(self, step: int) -> None:
        """What follows belongs to the step after ``step`` steps."""
        self._at = step

    def step(self, step: Callable[[], Any]) -> None:
        """Let the optimizer step (``step``) on weights in float32, and round them after."""
        groups = self._optimizer.param_groups
        for chunk in self._chunks() if self._one_by_one else [_weights(self._optimizer)]:
            own = {id(weight) for weight in chunk}
            if self._one_by_one:
                self._optimizer.param_groups = [
                    {**group, "params": inside}
                    for group in groups
                    if (inside := [weight for weight in group["params"] if id(weight) in own])
                ]
            try:
                with self._widened(chunk):
                    step()
            finally:
                self._optimizer.param_groups = groups

    def _chunks(self) -> Iterator[list[Tensor]]:
        chunk: list[Tensor] = []
        for weight in _weights(self._optimizer):
            if weight.grad is None:
                continue
            chunk.append(weight)
            if sum(one.numel() for one in chunk) >= CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    @contextmanager
    def _widened(self, weights: list[Tensor]) -> Generator[None, None, None]:
        """The weights in bfloat16 among these, and their gradients, are float32 meanwhile."""
        narrow = [weight for weight in weights if weight.dtype == torch.bfloat16]
        for weight in narrow:
            grad, weight.grad = weight.grad, None
            weight.data = weight.data.float()
            weight.grad = None if grad is None else grad.float()
        try:
            yield
        finally:
            for weight in narrow:
                weight.grad = None
                weight.data = stochastically(weight.data, self._generator(weight))

    def _generator(self, weight: Tensor) -> torch.Generator:
        key = keyed.key(self._seed, "rounding", self._at, self._index[id(weight)])
        return torch.Generator(weight.device).manual_seed(key)


class _Rounded:
    """Goes before an optimizer's class: its steps are rounded."""

    rounding: Rounding

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update; nothing is evaluated again."""
        assert closure is None, "a loss is never asked for again"
        self.rounding.step(super().step)  # type: ignore[misc]


def rounded(optimizer: torch.optim.Optimizer, seed: int, name: str) -> Rounding | None:
    """Have an optimizer round the steps of weights in bfloat16; None where it has none of these.

    Schedule-free optimizers average weights by themselves and are left as they are.
    """
    kind = find(name)
    narrow = any(weight.dtype == torch.bfloat16 for weight in _weights(optimizer))
    if not narrow or kind.schedule_free:
        return None
    one_by_one = kind.takes is not None and not (kind.finds_rate or kind.one_rate)
    made: Any = optimizer
    made.rounding = Rounding(optimizer, seed, one_by_one)
    made.__class__ = type(type(optimizer).__name__, (_Rounded, type(optimizer)), {})
    return made.rounding


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
