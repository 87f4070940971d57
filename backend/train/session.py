"""Everything a run needs, put together once and then only used."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from backend.data.loader import Batch, Loader
from backend.data.types import DatasetPlan
from backend.families.base import DiffusionModel, Sizes
from backend.jobs.control import ControlReader
from backend.jobs.events import Sink
from backend.settings import Settings
from backend.settings.length import Length
from backend.train.checkpoints import Position
from backend.train.meter import Meter
from backend.train.methods.base import Method
from backend.train.noise import NoiseRules, draw_input_noise, draw_noise, draw_timesteps
from backend.train.samples import Sampler
from backend.train.saver import Saver
from backend.train.schedules import Schedule
from backend.train.step import StepInputs, StepModule

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
    schedule: Schedule | None
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

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def inputs(self, batch: Batch) -> StepInputs:
        """A batch on the device, with the noise and timesteps that its pictures have at this visit."""
        device = self.device
        latents = self.latents(batch)
        noise = draw_noise(self.noise, batch.keys, latents)
        timesteps = draw_timesteps(self.noise, batch.keys)
        tokens = None
        if batch.text is None:
            length = self.settings.model.max_token_length
            tokens = {
                name: ids.to(device) for name, ids in self.model.tokenize(batch.captions, length).items()
            }
        return StepInputs(
            latents=latents,
            noise=noise.to(device),
            input_noise=draw_input_noise(self.noise, batch.keys, noise).to(device),
            timesteps=timesteps.to(device),
            loss_weights=batch.loss_weights.to(device),
            tokens=tokens,
            text=None if batch.text is None else {k: v.to(device) for k, v in batch.text.items()},
            masks=None if batch.masks is None else batch.masks.to(device),
            sizes=Sizes(batch.sizes.original, batch.sizes.crop, batch.sizes.target),
        )

    def latents(self, batch: Batch) -> torch.Tensor:
        """Cached latents, or the pictures encoded now; the same numbers either way."""
        if batch.latents is not None:
            return batch.latents.to(self.device)
        assert batch.pixels is not None
        noise = self.loader.posterior_noise(batch, self.model.latent_channels, self.model.scale_factor)
        with torch.no_grad():
            return self.model.encode_images(batch.pixels, noise).to(self.device)

    def wait(self, seconds: float | None = None) -> str:
        """Wait for ``resume`` or ``stop`` and tell which; '' when ``seconds`` pass without either."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            for command in self.control.poll():
                if command["command"] in ("resume", "stop", "stop_now"):
                    return "resume" if command["command"] == "resume" else "stop"
            time.sleep(LOOK_SECONDS)
        return ""

    def rates(self) -> dict[str, float]:
        """Learning rates by group name, as they are now."""
        return {
            str(group.get("name", index)): float(group["lr"] or 0.0)
            for index, group in enumerate(self.optimizer.param_groups)
        }

    def result_facts(self, position: Position) -> dict[str, Any]:
        """What the card of a finished run says."""
        return {
            **self.method.describe(),
            "steps": position.step,
            "epochs": self.length.epochs,
            "seed": self.seed,
            "average_loss": round(self.meter.average, 6),
        }

    def facts(self) -> dict[str, Any]:
        """What a restore point must remember besides weights."""
        return {
            "seed": self.seed,
            "pictures": picture_ids(self.loader.plan),
            "settings": self.settings.changed(),
        }


def picture_ids(plan: DatasetPlan) -> list[str]:
    """Identity and repeats of every picture: batches are counted over exactly these."""
    return sorted(f"{picture.id} x{picture.repeats}" for d in plan.datasets for picture in d.pictures)
