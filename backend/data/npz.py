"""Latents that sd-scripts left beside the pictures, as .npz files.

They hold samples of a VAE's posterior before scaling: ``latents`` and, mirrored, ``latents_flipped``,
(C, h, w) float32, with ``original_size`` (width, height). Those of SD 3 have the latents' size in their
names (``latents_64x48``), so that a file can hold several. Which VAE made them is not said, and neither is
what the picture was at that time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from backend.data.headers import HeaderError, read_header
from backend.data.types import Picture

ENDINGS = {"sdxl": ("_sdxl",), "sd1": ("_sd", "_sdxl"), "sd2": ("_sd", "_sdxl"), "sd3": ("_sd3",)}
"""Family -> what its files' names end in. Some scripts name SD 1 and 2 files as SDXL's."""
FAULTS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, SyntaxError)


class NpzCaches:
    """Reads the files of one family; samples, less ``shift``, are multiplied by ``factor``."""

    def __init__(self, family: str, factor: float, shift: float = 0.0) -> None:
        self.endings = ENDINGS.get(family, ())
        self.factor, self.shift = factor, shift
        self._sized_names = family == "sd3"

    def find(self, picture: Picture, flip: bool, shape: Sequence[int]) -> Path | None:
        """The file with a picture's latents of this ``shape``, or None when there is none that fits."""
        original = picture.geometry.original
        name = picture.path.stem
        sized = [f"{name}_{original[0]:04d}x{original[1]:04d}{ending}.npz" for ending in self.endings]
        unsized = () if self._sized_names else (f"{name}.npz",)
        for candidate in (*sized[:1], *unsized, *sized[1:]) if sized else ():
            path = picture.path.with_name(candidate)
            if path.is_file() and self._fits(path, picture, flip, shape):
                return path
        return None

    def read(self, path: Path, flip: bool, shape: Sequence[int]) -> Tensor | None:
        """Scaled latents (C, h, w) float32, or None when the file is damaged or gone."""
        name = self._name("latents_flipped" if flip else "latents", shape)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                sample = torch.from_numpy(np.asarray(arrays[name], dtype=np.float32))
        except FAULTS:
            return None
        latents = (sample - self.shift) * self.factor
        return latents if bool(latents.isfinite().all()) else None

    def _fits(self, path: Path, picture: Picture, flip: bool, shape: Sequence[int]) -> bool:
        """Shape and size agree, and the picture is stored upright: sd-scripts turns none."""
        name = self._name("latents_flipped" if flip else "latents", shape)
        try:
            with zipfile.ZipFile(path) as archive:
                if tuple(array_shape(archive, name)) != tuple(shape):
                    return False
            with np.load(path, allow_pickle=False) as arrays:
                size = [int(side) for side in arrays[self._name("original_size", shape)]]
            return size == list(picture.geometry.original) and read_header(picture.path).orientation == 1
        except (*FAULTS, HeaderError):
            return False

    def _name(self, array: str, shape: Sequence[int]) -> str:
        return f"{array}_{shape[1]}x{shape[2]}" if self._sized_names else array


def array_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array, from its first bytes."""
    with archive.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return read(file)[0]
