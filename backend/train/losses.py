"""How hard each picture was to learn: its mean loss beside that of others at like noise levels.

The loss of a step says more about its noise level than about its picture. So every picture's losses
are compared with the mean of all pictures in the same twentieth of the timesteps: 1 is as the
others, 2 twice as hard. Pictures that stay far above are often mislabelled, damaged or of another
kind; far below, duplicates.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.data.types import DatasetPlan, Picture
from backend.jobs.events import Sink
from backend.train.team import Team
from backend.wholefile import write_text

BINS = 20
TIMESTEPS = 1000
FILE = "losses.csv"
"""Lies in the run folder."""
FEW_VISITS = 5
"""With fewer, a picture is not named as a hard one: chance decides."""


@dataclass(frozen=True)
class Row:
    """One picture's figures over the run."""

    picture: Path
    visits: int
    mean: float
    relative: float
    """Its losses / those of all pictures at the same noise levels."""


class LossTable:
    """Counts and sums of losses, by picture and noise level."""

    def __init__(self, plan: DatasetPlan) -> None:
        pictures = [picture for dataset in plan.datasets for picture in dataset.pictures]
        self._pictures = {picture.id: picture for picture in pictures}
        self._rows = {id: row for row, id in enumerate(self._pictures)}
        self._counts = np.zeros((len(self._rows), BINS), np.int64)
        self._sums = np.zeros((len(self._rows), BINS), np.float64)

    def add(self, ids: Sequence[str], losses: Sequence[float], timesteps: Iterable[float]) -> None:
        """The losses of a batch. A picture's own weight (regularisation) is taken out again."""
        for id, loss, timestep in zip(ids, losses, timesteps, strict=True):
            weight = self._pictures[id].loss_weight
            level = min(int(timestep) * BINS // TIMESTEPS, BINS - 1)
            if weight:
                self._counts[self._rows[id], level] += 1
                self._sums[self._rows[id], level] += loss / weight

    def rows(self) -> list[Row]:
        """The pictures that were seen, the hardest first."""
        usual = self._sums.sum(0) / np.maximum(self._counts.sum(0), 1)
        expected = self._counts @ usual
        visits, sums = self._counts.sum(1), self._sums.sum(1)
        found = [
            Row(picture.path, int(n), float(total / n), float(total / other) if other else 1.0)
            for picture, n, total, other in zip(self._seen(), visits, sums, expected, strict=True)
            if n
        ]
        return sorted(found, key=lambda row: (-row.relative, str(row.picture)))

    def _seen(self) -> Iterable[Picture]:
        return self._pictures.values()

    def text(self) -> str:
        """The table as CSV with a line of names."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("picture", "folder", "visits", "mean_loss", "relative_loss"))
        for row in self.rows():
            figures = row.visits, f"{row.mean:.6f}", f"{row.relative:.3f}"
            writer.writerow((row.picture.name, str(row.picture.parent), *figures))
        return text.getvalue()

    def collect(self, team: Team) -> None:
        """Bring to the main process what all have counted, each for its own pictures.

        The others begin anew, so that nothing is counted twice when it is done again.
        """
        if team.size == 1:
            return
        parts = team.gather((self._counts, self._sums))
        shares = parts if team.main else parts[:0]
        self._counts = np.sum([np.zeros_like(self._counts), *(counts for counts, _ in shares)], axis=0)
        self._sums = np.sum([np.zeros_like(self._sums), *(sums for _, sums in shares)], axis=0)

    def state(self) -> dict[str, Any]:
        """What a restore point keeps."""
        return {
            "pictures": list(self._rows),
            "counts": torch.from_numpy(self._counts.copy()),
            "sums": torch.from_numpy(self._sums.copy()),
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a restore point, with what it knows of the pictures that are still there."""
        if state is None:
            return
        known = [(row, self._rows[id]) for row, id in enumerate(state["pictures"]) if id in self._rows]
        old, new = [row for row, _ in known], [row for _, row in known]
        self._counts[new], self._sums[new] = state["counts"].numpy()[old], state["sums"].numpy()[old]


def tell(table: LossTable, run: Path, events: Sink) -> dict[str, Any]:
    """Write ``losses.csv`` into the run folder, and give what the result's card says of it.

    A file that cannot be written is a warning: the result is there.
    """
    try:
        write_text(run / FILE, table.text())
    except OSError as error:
        events.emit("warning", text=f"{FILE} could not be written: {error.strerror or error}")
        return {}
    hard = [row for row in table.rows() if row.visits >= FEW_VISITS and row.relative > 1]
    names = [f"{row.picture.name} ({row.relative:.2f})" for row in hard[:3]]
    if names:
        text = (
            f"hardest pictures, by loss / that of others at like noise levels: {', '.join(names)}; "
            f"all in {FILE} of the run's folder"
        )
        events.emit("note", text=text)
    return {"losses": FILE, "hardest": names}
