"""How long a run is: steps, epochs, and what an epoch holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backend.settings import Settings


@dataclass(frozen=True)
class Length:
    """Numbers of a whole run. A step is an optimizer step of all processes together."""

    steps: int
    epochs: int
    steps_per_epoch: int
    batches_per_epoch: int
    """Batches; several processes share each."""
    accumulation: int


def run_length(settings: Settings, batches: int) -> Length:
    """Steps and epochs for ``batches`` batches an epoch.

    Epochs, when given, decide the steps; the last step of an epoch takes what batches are left.
    """
    accumulation = settings.schedule.gradient_accumulation_steps
    per_epoch = math.ceil(batches / accumulation)
    epochs = settings.schedule.max_train_epochs
    steps = epochs * per_epoch if epochs else settings.schedule.max_train_steps
    return Length(steps, epochs or math.ceil(steps / per_epoch), per_epoch, batches, accumulation)
