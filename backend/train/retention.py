"""Which files of a run are kept when only the last ones are wanted.

The counting is sd-scripts'. ``save_last_n_epochs`` counts files; ``save_last_n_steps`` counts steps,
so that a file every 10 steps and the last 30 steps leave four files; ``save_last_n_step_files``
counts files of steps. Restore points follow the ``..._state`` options, or those of the files where
they are empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend.settings.length import Length
from backend.settings.sections import SavingSettings
from backend.train.manifest import Entry


@dataclass(frozen=True)
class Keep:
    """How many files of one kind stay. None: all."""

    epochs: int | None
    """Files of epochs."""
    steps: int | None
    """Steps back from the newest file of a step."""
    step_files: int | None
    """Files of steps."""


@dataclass(frozen=True)
class Retention:
    """When files are written, and which go when a new one is there."""

    every_epochs: int | None
    every_steps: int | None
    files: Keep
    states: Keep

    @classmethod
    def of(cls, saving: SavingSettings, epochs: int) -> Retention:
        """``epochs``: those of the whole run, of which ``save_n_epoch_ratio`` makes parts."""
        ratio = saving.save_n_epoch_ratio
        files = Keep(saving.save_last_n_epochs, saving.save_last_n_steps, saving.save_last_n_step_files)
        states = Keep(
            saving.save_last_n_epochs_state or files.epochs,
            saving.save_last_n_steps_state or files.steps,
            None if saving.save_last_n_steps_state else files.step_files,
        )
        every = max(1, epochs // ratio) if ratio else saving.save_every_n_epochs
        return cls(every, saving.save_every_n_steps, files, states)

    def outdated(self, entries: Iterable[Entry], newest: Entry) -> list[Entry]:
        """Entries of the same kind and moment as ``newest`` that its writing makes superfluous.

        Only what the clock of epochs or steps brought about is looked at: the result, what somebody
        asked for and the rolling restore point stay.
        """
        keep = self.states if newest.kind == "state" else self.files
        peers = [e for e in entries if (e.kind, e.moment) == (newest.kind, newest.moment)]
        if newest.moment == "epoch" and keep.epochs and self.every_epochs:
            return [e for e in peers if e.epoch <= newest.epoch - self.every_epochs * keep.epochs]
        if newest.moment != "step":
            return []
        if keep.step_files:
            return sorted(peers, key=lambda e: e.step)[: -keep.step_files]
        if keep.steps and self.every_steps:
            limit = newest.step - keep.steps - 1
            return [e for e in peers if e.step <= limit - limit % self.every_steps]
        return []

    def most(self, length: Length, keep: Keep) -> int:
        """Files of epochs and steps that lie on the disk at one time at most, without the result.

        A new file is written before an old one goes, so there is one more than are kept.
        """
        epochs = _times(length.epochs, self.every_epochs)
        steps = _times(length.steps, self.every_steps)
        if keep.epochs:
            epochs = min(epochs, keep.epochs + 1)
        if keep.step_files:
            steps = min(steps, keep.step_files + 1)
        elif keep.steps and self.every_steps:
            steps = min(steps, -(-(keep.steps + 1) // self.every_steps) + 1)
        return epochs + steps


def _times(whole: int, every: int | None) -> int:
    """How often ``every`` comes round before the end, which has a file of its own."""
    return (whole - 1) // every if every else 0
