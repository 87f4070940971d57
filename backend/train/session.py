"""Everything a run needs, put together once and then only used."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from backend.data.loader import Batch, Loader
from backend.families.base import DiffusionModel, Sizes, TokenIds, TokenWeights
from backend.jobs.control import ControlReader
from backend.jobs.events import Sink
from backend.settings import Settings
from backend.settings.length import Length
from backend.train import optimizers
from backend.train.basefile import BaseWatch
from backend.train.checkpoints import Position
from backend.train.ema import Ema
from backend.train.encoding import encode_pictures
from backend.train.fused import FusedBackward
from backend.train.idle import IdleWatch
from backend.train.meter import Meter
from backend.train.methods.base import Adjustable, Method
from backend.train.noise import NoiseRules, draw_input_noise, draw_noise, draw_timesteps
from backend.train.preservation import Preservation, is_held
from backend.train.rounding import Rounding
from backend.train.samples import Sampler
from backend.train.saver import Saver
from backend.train.schedule_class import ClassSchedule
from backend.train.schedules import Schedule
from backend.train.sharding import ENTIRE, Parts
from backend.train.sources import Sources
from backend.train.step import ClassText, StepInputs, StepModule
from backend.train.team import ALONE, SharedControl, Team
from backend.train.texts import tokenize
from backend.train.transfer import onto
from backend.train.validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator


LOOK_SECONDS = 0.2
"""Seconds between two looks for a command while a run waits."""


@dataclass(frozen=True)
class Session:
    """The parts of one run, as the loop sees them."""

    settings: Settings
    seed: int
    accelerator: Accelerator
    model: DiffusionModel
    method: Method
    module: StepModule
    """The step: trainable weights and loss. Possibly wrapped for several processes."""
    optimizer: torch.optim.Optimizer
    schedule: Schedule | ClassSchedule | None
    """None when the optimizer sets its own rate."""
    base_rates: tuple[float, ...]
    """Learning rate of each optimizer group before the schedule."""
    noise: NoiseRules
    loader: Loader
    length: Length
    meter: Meter
    saver: Saver
    sampler: Sampler
    control: ControlReader
    events: Sink
    fused: FusedBackward | None = None
    """Not None when weights are changed inside the backward pass."""
    rounding: Rounding | None = None
    """Not None when weights are bfloat16 and rounded by chance."""
    team: Team = ALONE
    """The processes of this training."""
    parts: Parts = ENTIRE
    """Whether what is trained lies whole in each of them."""
    sources: Sources = field(default_factory=Sources)
    """The pictures' files as they were when the run began."""
    validator: Validator | None = None
    """None without pictures held out."""
    ema: Ema | None = None
    preservation: Preservation | None = None
    """What is held to the base model beside the lesson."""
    idle: IdleWatch = field(default_factory=IdleWatch)
    cached_text: frozenset[str] = frozenset()
    """Text encoders that ran before the first step."""
    base_file: BaseWatch | None = None
    """Looked at whenever a file is saved."""
    identity: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What restore points remember besides weights: see ``differences``."""

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def kept_weights(self) -> AbstractContextManager[None]:
        """The weights that the run keeps and shows are in place meanwhile: the mean, where there is one,
        or what a schedule-free optimizer means.

        Around everything that saves results, draws samples or measures; never around a restore point.
        """
        return optimizers.averaged(self.optimizer) if self.ema is None else self.ema.applied()

    def strength(self, batch: Batch) -> AbstractContextManager[None]:
        """What is trained acts on the model as strongly as the batch's dataset says, backward included."""
        if batch.network_multiplier == 1.0:
            return nullcontext()
        assert isinstance(self.method, Adjustable), "checked when the session was built"
        return self.method.at_strength(batch.network_multiplier)

    def inputs(self, batch: Batch, rules: NoiseRules | None = None) -> StepInputs:
        """A batch on the device, with the noise and timesteps that its pictures have at this visit.

        ``rules``: other ones than those of training.
        """
        device, drawn, rules = self.device, rules is None, rules or self.noise
        latents = self.latents(batch)
        noise = draw_noise(rules, batch.keys, latents)
        added = draw_input_noise(rules, batch.keys, noise)
        target = onto(noise, device)
        tokens, token_weights = self._tokens(batch.captions)
        held = [is_held(picture) for picture in batch.pictures]
        draws = self.model.training_draws(self.seed, batch.keys) if drawn else {}
        return StepInputs(
            latents=latents,
            noise=target,
            input_noise=target if added is noise else onto(added, device),
            timesteps=onto(draw_timesteps(rules, batch.keys), device),
            loss_weights=onto(batch.loss_weights, device),
            tokens=tokens,
            token_weights=token_weights,
            to_base=torch.tensor(held).to(device) if any(held) else None,
            class_text=self._class_text(batch),
            draws={name: onto(value, device) for name, value in draws.items()},
            text=None if batch.text is None else {k: onto(v, device) for k, v in batch.text.items()},
            masks=None if batch.masks is None else onto(batch.masks, device),
            guides=None if batch.conditioning is None else onto(batch.conditioning, device),
            sizes=Sizes(batch.sizes.original, batch.sizes.crop, batch.sizes.target),
        )

    def _tokens(self, captions: Sequence[str]) -> tuple[TokenIds | None, TokenWeights | None]:
        """Ids for the text encoders that run in the step, None for none, and their emphasis."""
        if self.cached_text == self.model.text_encoders.keys():
            return None, None
        tokens, weights = tokenize(self.model, captions, self.settings.model, self.device)
        return {name: row for name, row in tokens.items() if name not in self.cached_text}, weights

    def _class_text(self, batch: Batch) -> ClassText | None:
        """What is held beside the lesson, where the subject is in a caption of the batch."""
        if self.preservation is None:
            return None
        found = self.preservation.of_batch(batch.pictures, batch.captions)
        if found is None:
            return None
        tokens, weights = self._tokens(found.texts)
        text = None if batch.text is None else self.loader.encoded(found.texts, batch.pictures)
        text = None if text is None else {name: tensor.to(self.device) for name, tensor in text.items()}
        return ClassText(torch.tensor(found.shares).to(self.device), tokens, weights, text)

    def latents(self, batch: Batch) -> torch.Tensor:
        """Cached latents, or the pictures encoded now; the same numbers either way."""
        if batch.latents is not None:
            return onto(batch.latents, self.device)
        assert batch.pixels is not None
        noise = self.loader.posterior_noise(batch, self.model.latent_channels, self.model.scale_factor)
        return encode_pictures(self.model, batch.pixels, noise, self.events).to(self.device)

    def wait(self, seconds: float | None = None) -> str:
        """Wait for ``resume`` or ``stop`` and tell which; '' when ``seconds`` pass without either.

        Without ``seconds``, all processes of a training have to wait together; with them, the main one waits.
        """
        end = None if seconds is None else time.monotonic() + seconds
        control = self.control
        alone = control if seconds is not None and isinstance(control, SharedControl) else None
        poll = alone.poll_alone if alone else control.poll
        while end is None or time.monotonic() < end:
            found = {command["command"] for command in poll()}
            if found & {"stop", "stop_now"}:
                return "stop"
            if "resume" in found:
                return "resume"
            time.sleep(LOOK_SECONDS)
        return ""

    def rates(self) -> dict[str, float | torch.Tensor]:
        """Learning rates by group name, as they are now; see ``optimizers.rates``."""
        return optimizers.rates(self.optimizer)

    def result_facts(self, position: Position) -> dict[str, Any]:
        """What the card of a finished run says."""
        return {
            **self.method.describe(),
            "steps": position.step,
            "epochs": self.length.epochs,
            "seed": self.seed,
            "average_loss": round(self.meter.average, 6),
            **({"validation_loss": self.validator.last} if self.validator else {}),
        }
