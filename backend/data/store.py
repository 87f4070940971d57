"""A keyed store of small sets of tensors, in memory or in a folder.

In a folder each addition is one safetensors file ("pack"), written under a temporary name and
renamed, so that several processes can add to and read from one folder at once. Each entry carries
a checksum; one that does not agree counts as absent, so that it is made again.
"""

from __future__ import annotations

import json
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from backend.wholefile import replacing

Entry = Mapping[str, Tensor]

_DTYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "I64": torch.int64,
}
_SUFFIX = ".safetensors"


class TensorStore(Protocol):
    """What both kinds of store can do. Tensors are on the CPU and not to be changed."""

    damaged: int
    """Entries that were asked for and found damaged so far."""

    def has(self, key: str) -> bool:
        """True when :meth:`get` will give the entry. Reads it whole."""
        ...

    def get(self, key: str) -> Entry | None:
        """The entry, or None when there is none that is sound."""
        ...

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Keep entries; earlier ones of the same keys give way."""
        ...


class MemoryStore:
    """Entries as long as the process lives."""

    def __init__(self) -> None:
        self.damaged = 0
        self._entries: dict[str, Entry] = {}

    def has(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, entries: Mapping[str, Entry]) -> None:
        for key, entry in entries.items():
            self._entries[key] = {name: tensor.detach().cpu().contiguous() for name, tensor in entry.items()}


@dataclass(frozen=True)
class _Place:
    """Where an entry lies in a pack."""

    pack: Path
    tensors: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """(name, dtype, shape, first byte, byte after the last), from the start of the file."""
    checksum: str


class FolderStore:
    """Entries in the packs of one folder, which is made when first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = 0
        self._places: dict[str, _Place] = {}
        self._seen: set[str] = set()
        self._refresh()

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Entry | None:
        place = self._places.get(key)
        if place is None and self._refresh():
            place = self._places.get(key)
        if place is None:
            return None
        entry = _read(place)
        if entry is None:
            self.damaged += 1
            del self._places[key]
        return entry

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Raises OSError when the folder cannot be written to (a full disk, say)."""
        if not entries:
            return
        from safetensors.torch import save

        tensors = {
            f"{key}/{name}": t.detach().cpu().contiguous()
            for key, e in entries.items()
            for name, t in e.items()
        }
        checksums = {key: _checksum(tensors, key, sorted(entry)) for key, entry in entries.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        # Names sort by time, so that what was made again stands after what it replaces.
        pack = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
        with replacing(pack) as new:
            new.file.write(save(tensors, metadata=checksums))
        self._index(pack)

    def _refresh(self) -> bool:
        """Index packs that came since; True when there were any."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(_SUFFIX))  # noqa: PTH208
        except OSError:
            return False
        new = [name for name in names if name not in self._seen]
        for name in new:
            self._index(self.folder / name)
        return bool(new)

    def _index(self, pack: Path) -> None:
        self._seen.add(pack.name)
        try:
            with pack.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > os.fstat(file.fileno()).st_size:
                    raise ValueError("a header longer than the file")
                header: dict[str, Any] = json.loads(file.read(length))
            self._places.update(_places(pack, header, 8 + length))
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            self.damaged += 1


def _places(pack: Path, header: dict[str, Any], start: int) -> dict[str, _Place]:
    checksums: dict[str, str] = header.pop("__metadata__")
    tensors: dict[str, list[tuple[str, str, tuple[int, ...], int, int]]] = {}
    for full, facts in header.items():
        key, _, name = full.rpartition("/")
        first, after = facts["data_offsets"]
        tensors.setdefault(key, []).append(
            (name, facts["dtype"], tuple(facts["shape"]), start + first, start + after)
        )
    return {key: _Place(pack, tuple(sorted(found)), checksums[key]) for key, found in tensors.items()}


def _read(place: _Place) -> Entry | None:
    """The entry at a place, or None when it is damaged or gone."""
    entry: dict[str, Tensor] = {}
    total = 0
    try:
        with place.pack.open("rb") as file:
            for name, dtype, shape, first, after in place.tensors:
                file.seek(first)
                data = bytearray(file.read(after - first))
                total = zlib.crc32(data, total)
                entry[name] = torch.frombuffer(data, dtype=_DTYPES[dtype]).reshape(shape)
    except (OSError, ValueError, RuntimeError, KeyError):
        return None
    return entry if f"{total:08x}" == place.checksum else None


def _checksum(tensors: Mapping[str, Tensor], key: str, names: Iterable[str]) -> str:
    """CRC-32 over the bytes of an entry's tensors in the order of their names."""
    total = 0
    for name in names:
        raw = tensors[f"{key}/{name}"].reshape(-1).view(torch.uint8).numpy()
        total = zlib.crc32(raw.tobytes(), total)
    return f"{total:08x}"
