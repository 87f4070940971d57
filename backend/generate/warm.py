"""The model that stays in memory between pictures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from backend import families
from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.families.options import LoadOptions
from backend.generate.attachments import Attachments, FileKey

Say = Callable[..., None]
"""Told what is being loaded (``what``, ``path``) or noted (``note``)."""


class Warm:
    """At most one base model with what is put to it, loaded when first needed.

    Another base loads anew. Another network, another strength, another VAE leave it where it is:
    they are put to it by its :class:`Attachments`.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or best_device()
        self.model: DiffusionModel | None = None
        self.attachments: Attachments | None = None
        """Of the model that is loaded."""
        self._base: tuple[FileKey, tuple[FileKey, ...]] | None = None

    @property
    def path(self) -> Path | None:
        """The base model's file, None when nothing is loaded."""
        return self._base[0].path if self._base else None

    def use(
        self, base: Path, say: Say, encoders: Mapping[str, Path] | None = None, vae: str = ""
    ) -> tuple[DiffusionModel, Attachments]:
        """The model of ``base``, and what puts networks to it.

        ``encoders``: files of text encoders that are not in it, by their names in ``LoadOptions``;
        ``vae``: the file whose VAE it takes when it comes without one.

        Raises InputError when a file is missing, damaged or for another family. When it is missing,
        whatever was loaded before stays.
        """
        encoders = encoders or {}
        files = tuple(FileKey.of(path, key) for key, path in sorted(encoders.items()))
        wanted = FileKey.of(base, "base model"), files
        if wanted != self._base or self.model is None or self.attachments is None:
            self.unload()
            say(what="model", path=base.name)
            own = LoadOptions(encoders.get("clip_l"), encoders.get("clip_g"), encoders.get("t5xxl"))
            self.model = self._load(base, own, vae)
            self.attachments = Attachments(self.model, say)
            self._base = wanted
            for note in self.model.notes:
                say(note=note)
        return self.model, self.attachments

    def _load(self, base: Path, own: LoadOptions, vae: str) -> DiffusionModel:
        try:
            return families.load(base, dtype=self._dtype(), device=self.device, options=own)
        except InputError as error:
            if not vae or all(problem.key != "vae" for problem in error.problems):
                raise
        return families.load(base, dtype=self._dtype(), device=self.device, options=own, vae=vae)

    def unload(self) -> None:
        """Forget everything and give the memory back."""
        self.model = self.attachments = self._base = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _dtype(self) -> torch.dtype:
        # Half precision is far slower than single on a processor.
        return torch.float16 if self.device.type == "cuda" else torch.float32


def best_device() -> torch.device:
    """The graphics card when there is one, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory(device: torch.device) -> dict[str, Any]:
    """Bytes in use: of this process, and of the graphics card by this process."""
    import psutil

    facts = {"process": psutil.Process().memory_info().rss}
    if device.type == "cuda":
        facts["device"] = torch.cuda.memory_reserved(device)
    return facts
