"""A keyed store of small sets of tensors, in memory or in a folder.

In a folder each addition is one safetensors file ("pack"), written under a temporary name and
renamed; many small ones are merged later. So several processes can add to and read from one folder
at once. Each entry carries a checksum; one that does not agree counts as absent, so that it is made
again.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from backend.data.packs import SUFFIX, Gone, Maps, Place, read_index, write_merged
from backend.wholefile import replacing

Entry = Mapping[str, Tensor]

MANY = 32
"""Small packs that are left alone; more are merged."""
_SMALL = 256 << 20
_LARGE = 1 << 30
"""Bytes: packs below the first are merged, into packs of about the second."""


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

    def compact(self) -> int:
        """Merge small files when there are many; gives how many went into others."""
        ...


class MemoryStore:
    """Entries as long as the process lives."""

    def __init__(self) -> None:
        self.damaged = 0
        self._entries: dict[str, Entry] = {}

    def entries(self) -> Mapping[str, Entry]:
        """All there is, by key."""
        return self._entries

    def has(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, entries: Mapping[str, Entry]) -> None:
        for key, entry in entries.items():
            self._entries[key] = {name: tensor.detach().cpu().contiguous() for name, tensor in entry.items()}

    def compact(self) -> int:
        return 0


class FolderStore:
    """Entries in the packs of one folder, which is made when first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = 0
        self._places: dict[str, Place] = {}
        self._seen: set[str] = set()
        self._maps = Maps()
        self._refresh()

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Entry | None:
        place = self._places.get(key)
        if place is None and self._refresh():
            place = self._places.get(key)
        while place is not None:
            try:
                entry = self._maps.read(place)
            except Gone:
                place = self._moved(key, place)
                continue
            if entry is None:
                self.damaged += 1
                self._places.pop(key, None)
            return entry
        return None

    def _moved(self, key: str, place: Place) -> Place | None:
        """Where an entry lies now whose pack is gone."""
        self._seen.discard(place.pack.name)
        if self._places.get(key) == place:
            del self._places[key]
        self._refresh()
        return self._places.get(key)

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
        pack = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        with replacing(pack) as new:
            new.file.write(save(tensors, metadata=checksums))
        self._index(pack)

    def _refresh(self) -> bool:
        """Index packs that came since; True when there were any."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(SUFFIX))  # noqa: PTH208
        except OSError:
            return False
        new = [name for name in names if name not in self._seen]
        for name in new:
            self._index(self.folder / name)
        return bool(new)

    def compact(self) -> int:
        """Merge small packs when there are many; gives how many went into others.

        Several processes may do so at once: what both merge is there twice until the next time.
        """
        self._refresh()
        small = sorted(self._small_packs())
        if len(small) <= MANY:
            return 0
        merged = 0
        for group in self._groups(small):
            with contextlib.suppress(OSError):  # a full disk, or another process was first
                self._merge(group)
                merged += len(group)
        return merged

    def _small_packs(self) -> list[Path]:
        found: list[Path] = []
        for name in self._seen:
            with contextlib.suppress(OSError):
                if (self.folder / name).stat().st_size < _SMALL:
                    found.append(self.folder / name)
        return found

    @staticmethod
    def _groups(packs: list[Path]) -> list[list[Path]]:
        """Packs in order of their names, in groups that make a large one each."""
        groups: list[list[Path]] = [[]]
        size = 0
        for pack in packs:
            with contextlib.suppress(OSError):
                size += pack.stat().st_size
            groups[-1].append(pack)
            if size >= _LARGE:
                groups.append([])
                size = 0
        return [group for group in groups if len(group) > 1]

    def _merge(self, packs: list[Path]) -> None:
        """Write the entries that lie in ``packs`` into a new one, and remove these."""
        wanted = set(packs)
        places = [(key, place) for key, place in self._places.items() if place.pack in wanted]
        places.sort(key=lambda item: (item[1].pack, item[1].tensors[0][3] if item[1].tensors else 0))
        # It sorts beside the last of them, so that later packs still win over it.
        merged = packs[-1].with_name(f"{packs[-1].stem}-{uuid.uuid4().hex[:8]}{SUFFIX}")
        with replacing(merged) as new:
            write_merged(new.file, places)
        self._index(merged, places)
        for pack in packs:
            self._maps.forget(pack)
            with contextlib.suppress(OSError):
                pack.unlink()

    def _index(self, pack: Path, only: list[tuple[str, Place]] | None = None) -> None:
        """Learn a pack's places; with ``only``, of entries that still lie where they did."""
        self._seen.add(pack.name)
        try:
            found = read_index(pack)
        except FileNotFoundError:
            return  # merged by another process meanwhile
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            self.damaged += 1
            return
        if only is not None:
            found = {key: found[key] for key, place in only if self._places.get(key) == place}
        self._places.update(found)


def _checksum(tensors: Mapping[str, Tensor], key: str, names: Iterable[str]) -> str:
    """CRC-32 over the bytes of an entry's tensors in the order of their names."""
    total = 0
    for name in names:
        raw = tensors[f"{key}/{name}"].reshape(-1).view(torch.uint8).numpy()
        total = zlib.crc32(raw.tobytes(), total)
    return f"{total:08x}"
