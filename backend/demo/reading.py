"""The bundled tagger and captioner: what they see in pictures of the demo's world.

Both are ordinary ones of :mod:`backend.annotate`; here they take pictures that are in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.annotate.captioners import Captioner, Writing, open_captioner
from backend.annotate.tagger import Tagger
from backend.annotate.tagrules import blank
from backend.errors import InputError
from backend.system.paths import REPOSITORY

TAGGER = REPOSITORY / "models" / "demo" / "tagger"
CAPTIONER = REPOSITORY / "models" / "demo" / "captioner"
THRESHOLD = 0.35
"""The usual one of WD14 taggers."""
_BATCH = 16
_LIKELIEST = Writing(longest=36, shortest=0)


class TagReader:
    """A WD14-like tagger out of a folder with ``model.onnx`` and ``selected_tags.csv``.

    :raises InputError: when one of the two files is missing.
    """

    def __init__(self, folder: Path = TAGGER) -> None:
        _there(folder / "model.onnx")
        _there(folder / "selected_tags.csv")
        self._tagger = Tagger(folder, threads=1)
        table = self._tagger.table
        self._kept = [place for place, category in enumerate(table.categories) if category != "rating"]
        self.tags = [blank(table.names[place]) for place in self._kept]

    def probabilities(self, pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Probabilities (pictures, tags) of :attr:`tags`, without the ratings."""
        ready = [self._tagger.prepare(np.asarray(picture.convert("RGB"))) for picture in pictures]
        parts = [
            self._tagger.probabilities(ready[first : first + _BATCH])
            for first in range(0, len(ready), _BATCH)
        ]
        return np.concatenate(parts)[:, self._kept]

    def tags_of(self, pictures: Sequence[Image.Image], threshold: float = THRESHOLD) -> list[list[str]]:
        """Tags above the threshold, the surest first."""
        found: list[list[str]] = []
        for row in self.probabilities(pictures):
            order = np.argsort(-row, kind="stable")
            found.append([self.tags[index] for index in order if row[index] > threshold])
        return found


class CaptionReader:
    """A captioner out of a folder, on the processor.

    :raises InputError: when the folder has no model.
    """

    def __init__(self, folder: Path = CAPTIONER) -> None:
        self.folder = folder
        _there(folder / "model.safetensors")

    @cached_property
    def _captioner(self) -> Captioner:
        return open_captioner(self.folder, "cpu")

    def captions_of(self, pictures: Sequence[Image.Image]) -> list[str]:
        """The likeliest caption of each picture, word by word."""
        found: list[str] = []
        for first in range(0, len(pictures), _BATCH):
            part = [picture.convert("RGB") for picture in pictures[first : first + _BATCH]]
            found += self._captioner.captions(part, [""] * len(part), _LIKELIEST)
        return found


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InputError("a file of the bundled models is missing", where=str(path), next="update Atelier")
    return path
