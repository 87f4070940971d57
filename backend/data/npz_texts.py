"""Captions that sd-scripts encoded and left beside the pictures, as .npz files.

A file holds what the text encoders made of one picture's caption. It does not say which caption, nor which
encoders; so one that is older than the caption's file is not used, nor one of other sizes or rules.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from backend.data.npz import FAULTS, array_shape
from backend.data.store import Entry
from backend.data.types import Picture
from backend.families.base import CaptionFiles

_CAPTIONS = (".txt", ".caption")


class NpzTexts:
    """Reads the files of one family and one set of encoders."""

    def __init__(self, layout: CaptionFiles) -> None:
        self.layout = layout

    def find(self, picture: Picture) -> Path | None:
        """The file with a picture's encoded caption, or None when there is none that fits."""
        path = picture.path.with_name(f"{picture.path.stem}{self.layout.ending}.npz")
        return path if path.is_file() and self._fits(path) and not _outdated(path, picture) else None

    def read(self, path: Path) -> Entry | None:
        """Conditioning without a batch dimension, or None when the file is damaged or gone."""
        found: Entry = {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for name, (array, start, end) in self.layout.columns.items():
                    whole = torch.from_numpy(np.asarray(arrays[array], dtype=np.float32))
                    found[name] = whole[..., start:end].clone()
        except FAULTS:
            return None
        return found if all(bool(tensor.isfinite().all()) for tensor in found.values()) else None

    def _fits(self, path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                shapes = {name: tuple(array_shape(archive, name)) for name in self.layout.shapes}
            with np.load(path, allow_pickle=False) as arrays:
                flags = {name: bool(arrays[name]) for name in self.layout.flags}
        except FAULTS:
            return False
        return shapes == dict(self.layout.shapes) and flags == dict(self.layout.flags)


def _outdated(path: Path, picture: Picture) -> bool:
    """Whether a caption was written after the file."""
    made = path.stat().st_mtime_ns
    captions = [picture.path.with_suffix(ending) for ending in _CAPTIONS]
    return any(caption.stat().st_mtime_ns > made for caption in captions if caption.is_file())
