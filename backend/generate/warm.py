"""The model that stays in memory between pictures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from backend import families, networks
from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.families.options import LoadOptions
from backend.networks.base import Network

Say = Callable[..., None]
"""Told what is being loaded (``what``, ``path``) or noted (``note``)."""


@dataclass(frozen=True)
class LoraChoice:
    """A network file and how strongly it acts; 0 is as if it were not there."""

    path: Path
    strength: float = 1.0


@dataclass(frozen=True)
class _FileKey:
    """A file as it is now: a changed one counts as another."""

    path: Path
    changed: int
    size: int


class Warm:
    """At most one base model with its networks, loaded when first needed.

    Another base or VAE loads anew. Another network, or another strength, leaves the base where it
    is: networks only hook themselves into its modules.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or best_device()
        self.model: DiffusionModel | None = None
        self._base: tuple[_FileKey, _FileKey | None, tuple[_FileKey, ...]] | None = None
        self._networks: dict[_FileKey, Network] = {}

    @property
    def path(self) -> Path | None:
        """The base model's file, None when nothing is loaded."""
        return self._base[0].path if self._base else None

    def use(
        self,
        base: Path,
        vae: Path | None,
        loras: Sequence[LoraChoice],
        say: Say,
        encoders: Mapping[str, Path] | None = None,
    ) -> DiffusionModel:
        """The model of ``base`` with ``loras`` attached in order.

        ``encoders``: files of text encoders that are not in it, by their names in ``LoadOptions``.

        Raises InputError when a file is missing, damaged or for another family. Whatever was loaded
        before stays usable then.
        """
        encoders = encoders or {}
        files = tuple(_key(path, key) for key, path in sorted(encoders.items()))
        wanted = _key(base, "base model"), _key(vae, "VAE") if vae else None, files
        keys = [(_key(lora.path, "LoRA"), lora.strength) for lora in loras]
        if wanted != self._base or self.model is None:
            self.unload()
            say(what="model", path=base.name)
            own = LoadOptions(encoders.get("clip_l"), encoders.get("clip_g"), encoders.get("t5xxl"))
            self.model = families.load(base, dtype=self._dtype(), device=self.device, vae=vae, options=own)
            self._base = wanted
            for note in self.model.notes:
                say(note=note)
        self._attach(self.model, keys, say)
        return self.model

    def unload(self) -> None:
        """Forget everything and give the memory back."""
        self._networks.clear()
        self.model = self._base = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _attach(self, model: DiffusionModel, wanted: list[tuple[_FileKey, float]], say: Say) -> None:
        """Attach exactly the wanted networks; those that are there already are not read again."""
        names = [key for key, _ in wanted]
        ready = {key: self._networks.get(key) or self._read(model, key, say) for key in names}
        if names != list(self._networks):
            for network in self._networks.values():
                network.detach()
            self._networks = ready
            for network in ready.values():
                network.attach()
        for key, network in ready.items():
            network.strength = sum(strength for name, strength in wanted if name == key)

    def _read(self, model: DiffusionModel, key: _FileKey, say: Say) -> Network:
        say(what="lora", path=key.path.name)
        modules = [*model.adapter_modules(), *model.further_modules()]
        network = networks.from_weights(networks.read_lora(key.path)[0], modules)
        module = cast("nn.Module", network)
        module.to(device=self.device, dtype=self._dtype()).requires_grad_(False).eval()
        if unused := list(getattr(network, "unused", ())):
            say(note=f"{key.path.name}: {len(unused)} weights fit no module of this model ({unused[0]}, ...)")
        return network

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


def _key(path: Path, what: str) -> _FileKey:
    try:
        facts = path.stat()
    except OSError as error:
        raise InputError(
            f"the {what} cannot be found: {path}",
            why=error.strerror or str(error),
            next="Choose a file that exists.",
        ) from None
    return _FileKey(path.resolve(), facts.st_mtime_ns, facts.st_size)
