"""The file, or diffusers folder, of a model that was itself trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from backend.families.base import DiffusionModel
from backend.families.store import Entry
from backend.settings import Settings
from backend.train.checkpoints import replace_folder
from backend.train.provenance import TrainingFacts
from backend.weights.convert import LEFT_BY_TRAINERS
from backend.weights.folder import write_folder
from backend.weights.precision import dtype_named
from backend.weights.reading import Rows
from backend.weights.streaming import Planned, write_planned

FOLDERS = ("diffusers", "diffusers_safetensors")


@dataclass(frozen=True)
class ModelFileWriter:
    """Writes a model as ``save_model_as`` and ``save_precision`` ask, checked and renamed into place."""

    settings: Settings
    model: DiffusionModel
    kept: frozenset[str]
    """Parts that were not trained: they are written as their source has them."""

    @property
    def _as_folder(self) -> bool:
        return self.settings.saving.save_model_as in FOLDERS

    @property
    def suffix(self) -> str:
        """Ending of the result's name; of a folder none."""
        return "" if self._as_folder else f".{self.settings.saving.save_model_as}"

    def write(self, path: Path, metadata: Mapping[str, str], facts: TrainingFacts) -> None:
        """Write the model as it is now. An older one of this run at the same place is replaced.

        Raises:
            RunFault: weights are not finite, also in the file's precision; the disk is full.
            EnvironmentFault: the folder cannot be written to.
        """
        if self._as_folder:
            self._write_folder(path)
        else:
            self._write_file(path, metadata, facts)

    def _write_file(self, path: Path, metadata: Mapping[str, str], facts: TrainingFacts) -> None:
        dtype = dtype_named(self.settings.saving.save_precision)
        entries = self.model.entries(dtype, self.kept)
        planned = [_planned(entry) for entry in entries if not entry.name.startswith(LEFT_BY_TRAINERS)]
        counts = {"epoch": facts.epoch, "global_step": facts.steps}
        write_planned(path, planned, {**self.model.file_metadata(), **metadata}, counts=counts)

    def _write_folder(self, path: Path) -> None:
        new = path.with_name(f".{path.name}.new")
        write_folder(
            self.model,
            new,
            dtype=dtype_named(self.settings.saving.save_precision),
            kept=self.kept,
            pickled=self.settings.saving.save_model_as == "diffusers",
        )
        replace_folder(new, path)


def _planned(entry: Entry) -> Planned:
    return Planned(entry.name, tuple(entry.shape), entry.dtype, partial(_whole, entry), by_rows=False)


def _whole(entry: Entry, rows: Rows | None) -> Tensor:
    assert rows is None, "planned as a whole"
    with torch.no_grad():
        return entry.make().detach()
