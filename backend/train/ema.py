"""A running mean of the trained weights (EMA), which is what the run keeps and shows.

``mean = d * mean + (1 - d) * weights`` after every step (Polyak & Juditsky 1992; Song et al. 2021 for
diffusion models). So that the first weights, which know nothing, are soon forgotten, d grows as
``min(ema_decay, (1 + n) / (10 + n))`` over the n updates. Until ``ema_start`` steps the mean is the
weights themselves.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from backend.errors import InputError


@dataclass
class Ema:
    """The mean of some weights, kept beside them in float32."""

    parameters: Mapping[str, nn.Parameter]
    """The trained weights by name."""
    decay: float
    start: int = 0
    """Optimizer steps before averaging begins."""
    updates: int = 0
    """Means taken so far."""
    means: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.means = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @classmethod
    def of(cls, trainable: nn.Module, decay: float | None, start: int) -> Ema | None:
        """The mean of what is trained in a module, or None where none is asked for."""
        if decay is None:
            return None
        return cls({n: p for n, p in trainable.named_parameters() if p.requires_grad}, decay, start)

    def rate(self) -> float:
        """How much of the mean stays at the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` optimizer steps. Nothing waits for the device."""
        averaging = step > self.start
        share = 1.0 - self.rate() if averaging else 1.0
        self.updates += averaging
        for name, parameter in self.parameters.items():
            self.means[name].lerp_(parameter.detach().float(), share)

    @contextmanager
    def applied(self) -> Generator[None, None, None]:
        """The weights are their means meanwhile, and the same as before to the bit afterwards."""
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._put(self.means)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def state(self) -> dict[str, Any]:
        """What a restore point keeps."""
        means = {name: mean.to("cpu", copy=True) for name, mean in self.means.items()}
        return {"updates": self.updates, "means": means}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a restore point; without one that has means, from the weights as they are.

        Raises:
            InputError: the means are of other weights.
        """
        if state is None:
            return
        means: Mapping[str, Tensor] = state["means"]
        shapes = {name: mean.shape for name, mean in means.items()}
        if shapes != {name: mean.shape for name, mean in self.means.items()}:
            raise InputError(
                "the averaged weights of the restore point do not fit what is trained",
                why="the network or the trained parts were changed since it was made",
                next="put them back, or leave ema_decay empty",
                key="ema_decay",
            )
        self.updates = int(state["updates"])
        for name, mean in means.items():
            self.means[name].copy_(mean)
