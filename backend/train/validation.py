"""The loss on pictures that are not trained on.

The yardstick never moves: the same pictures, noises and noise levels each time, captions as they
are, no dropout. It is keyed by ``validation_seed`` alone (0 when empty), as the choice of pictures
is, so runs with different seeds can be compared. Measuring changes nothing of the training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from backend.data.loader import Batch, Encoded, Loader
from backend.data.split import seed_of
from backend.data.types import DatasetPlan
from backend.errors import Problem
from backend.generate.engine import evaluating
from backend.generate.faults import problems_of
from backend.settings import Settings
from backend.train.caching import Caches
from backend.train.checkpoints import Position
from backend.train.noise import NoiseRules
from backend.train.samples import randomness_kept
from backend.train.step import StepModule

if TYPE_CHECKING:
    from backend.train.session import Session

LEVELS = 4
"""Noise levels at which every picture is measured, evenly between the bounds, as sd-scripts does."""


class Measured(NamedTuple):
    """One picture's losses at all levels, on the device until the end."""

    losses: Tensor
    """(levels, B) float32."""
    timesteps: Sequence[int]


@dataclass
class Validator:
    """Measures a run now and then."""

    loader: Loader
    """Of the pictures that are held out; its first epoch is the only one that is used."""
    seed: int
    """Of noises and of what is random in captions."""
    every_steps: int | None = None
    every_epochs: int | None = None
    """None: every epoch."""
    most: int | None = None
    """Batches that are measured, the first ones; None: all."""
    last: float | None = None
    """The latest loss."""
    _step: int = field(default=-1)

    @classmethod
    def of(cls, settings: Settings, plan: DatasetPlan | None, caches: Caches) -> Validator | None:
        """What the settings ask for; None without pictures held out (``plan``)."""
        if plan is None:
            return None
        wanted = settings.dataset
        seed = seed_of(plan)
        loader = Loader(
            plan, seed=seed, total_steps=1, threads=wanted.max_data_loader_n_workers,
            encoded=Encoded(caches.latents, caches.texts),
        )  # fmt: skip
        return cls(
            loader,
            seed,
            wanted.validate_every_n_steps,
            wanted.validate_every_n_epochs,
            wanted.max_validation_steps,
        )

    def due(self, position: Position, *, epoch_end: bool = False, at_end: bool = False) -> bool:
        """Whether to measure now: after an optimizer step, at an epoch's end, or at the run's end.

        No step is measured twice.
        """
        if position.step == self._step:
            return False
        if epoch_end:
            return position.epoch % (self.every_epochs or 1) == 0
        return at_end or (bool(self.every_steps) and position.step % (self.every_steps or 1) == 0)

    def pass_over(self, position: Position) -> None:
        """Another process measures now."""
        self._step = position.step

    def measure(self, session: Session, position: Position, *, epoch_end: bool = False) -> None:
        """Measure and record it. What goes wrong becomes a warning; a stop breaks it off."""
        self._step, started = position.step, time.monotonic()
        session.events.emit("phase", name="validating", title="Measuring on pictures held out")
        try:
            with randomness_kept(), torch.no_grad(), session.accelerator.autocast():
                found = self._losses(session)
        except Exception as error:  # a measurement never ends a run
            problem = problems_of(error)[0]
            self._warn(session, position, problem)
            return
        if found:
            self._record(session, position, found, epoch_end, time.monotonic() - started)

    def _losses(self, session: Session) -> list[Measured]:
        """Losses of all batches; [] when a stop was asked for meanwhile."""
        found: list[Measured] = []
        module = cast("StepModule", session.accelerator.unwrap_model(session.module))
        with evaluating([module, *session.model.parts().values()]):
            for batch in islice(self.loader.epoch(1), self.most):
                if session.control.stop_waits():
                    return []
                found.append(self._batch(session, module, batch))
        return found

    def _batch(self, session: Session, module: StepModule, batch: Batch) -> Measured:
        """Latents and text are encoded once for all levels; each level has noise of its own."""
        batch = replace(batch, latents=session.latents(batch))
        noise = replace(session.noise, seed=self.seed)
        levels = levels_of(noise)
        text = None
        losses: list[Tensor] = []
        with session.strength(batch):
            for number, timestep in enumerate(levels):
                visit = replace(batch, keys=tuple((name, number) for name, _ in batch.keys))
                rules = replace(noise, min_timestep=timestep, max_timestep=timestep)
                inputs = session.inputs(visit, rules)
                text = module.conditioning(inputs) if text is None else text
                inputs = replace(inputs, tokens=None, text=text, to_base=None, class_text=None)
                losses.append(module(inputs))
        return Measured(torch.stack(losses), levels)

    def _record(
        self, session: Session, position: Position, found: list[Measured], epoch_end: bool, seconds: float
    ) -> None:
        losses = torch.cat([measured.losses for measured in found], dim=1).cpu()
        self.last = round(float(losses.mean()), 6)
        session.events.emit(
            "validation",
            step=position.step,
            total=session.length.steps,
            epoch=position.epoch,
            when="epoch" if epoch_end else "step",
            loss=self.last,
            divergence=round(self.last - session.meter.average, 6),
            levels={
                str(t): round(float(row.mean()), 6) for t, row in zip(found[0].timesteps, losses, strict=True)
            },
            pictures=losses.shape[1],
            seconds=round(seconds, 3),
        )

    def _warn(self, session: Session, position: Position, problem: Problem) -> None:
        placed = replace(problem, where=problem.where or f"step {position.step}")
        text = f"step {position.step}: the validation loss could not be measured, training goes on"
        session.events.emit("warning", text=f"{text}: {problem.what}", problem=placed.as_dict())


def levels_of(rules: NoiseRules) -> list[int]:
    """Timesteps evenly inside the bounds: 200, 400, 600, 800 for 0 to 1000. Equal ones once."""
    low, high = rules.min_timestep, max(rules.max_timestep, rules.min_timestep + 1)
    inner = (low + (high - low) * i / (LEVELS + 1) for i in range(1, LEVELS + 1))
    return list(dict.fromkeys(int(value) for value in inner))
