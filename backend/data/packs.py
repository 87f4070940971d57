"""Packs: safetensors files of many small entries, read through memory maps, and merged when many.

Each entry carries a CRC-32 over its tensors in the file's metadata, so that damage to one entry is
noticed there and leaves the others alone.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "I64": torch.int64,
}
SUFFIX = ".safetensors"
_OPEN = 128
"""Packs that are mapped at once."""


@dataclass(frozen=True)
class Place:
    """Where an entry lies in a pack."""

    pack: Path
    tensors: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """(name, dtype, shape, first byte, byte after the last), from the start of the file."""
    checksum: str

    @property
    def size(self) -> int:
        return sum(after - first for *_, first, after in self.tensors)


class Gone(Exception):
    """The pack is not there any more: another process merged it into another."""


class Maps:
    """Memory maps of packs, the longest unused closed first. Shared by threads."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Path, mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, place: Place) -> dict[str, Tensor] | None:
        """The entry at a place, or None when it is damaged. Raises :class:`Gone`."""
        entry: dict[str, Tensor] = {}
        total = 0
        try:
            pack = self._map(place.pack)
            for name, dtype, shape, first, after in place.tensors:
                data = bytearray(pack[first:after])
                total = zlib.crc32(data, total)
                entry[name] = _tensor(data, dtype, shape)
        except FileNotFoundError:
            raise Gone from None
        except (OSError, ValueError, RuntimeError, KeyError):
            return None
        return entry if f"{total:08x}" == place.checksum else None

    def forget(self, pack: Path) -> None:
        """Close a pack's map, so that the file can be removed."""
        with self._lock:
            self._maps.pop(pack, None)

    def _map(self, pack: Path) -> mmap.mmap:
        with self._lock:
            found = self._maps.get(pack)
            if found is None:
                with pack.open("rb") as file:
                    found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._maps[pack] = found
                # A map that is dropped is closed when no thread reads from it any more.
                while len(self._maps) > _OPEN:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(pack)
            return found


def _tensor(data: bytearray, dtype: str, shape: tuple[int, ...]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=DTYPES[dtype])
    return torch.frombuffer(data, dtype=DTYPES[dtype]).reshape(shape)


def read_index(pack: Path) -> dict[str, Place]:
    """The places of a pack's entries. Raises OSError, or ValueError and its like when it is damaged."""
    with pack.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > os.fstat(file.fileno()).st_size:
            raise ValueError("a header longer than the file")
        header: dict[str, Any] = json.loads(file.read(length))
    checksums: dict[str, str] = header.pop("__metadata__")
    tensors: dict[str, list[tuple[str, str, tuple[int, ...], int, int]]] = {}
    for full, facts in header.items():
        key, _, name = full.rpartition("/")
        first, after = facts["data_offsets"]
        tensors.setdefault(key, []).append(
            (name, facts["dtype"], tuple(facts["shape"]), 8 + length + first, 8 + length + after)
        )
    return {key: Place(pack, tuple(sorted(found)), checksums[key]) for key, found in tensors.items()}


def write_merged(file: IO[bytes], places: Sequence[tuple[str, Place]]) -> None:
    """Write entries of several packs as one pack, bytes as they are. Raises OSError."""
    header: dict[str, Any] = {"__metadata__": {key: place.checksum for key, place in places}}
    offset = 0
    for key, place in places:
        for name, dtype, shape, first, after in place.tensors:
            span = [offset, offset + after - first]
            header[f"{key}/{name}"] = {"dtype": dtype, "shape": list(shape), "data_offsets": span}
            offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    source: IO[bytes] | None = None
    opened: Path | None = None
    try:
        for _, place in places:
            if place.pack != opened:
                if source:
                    source.close()
                source, opened = place.pack.open("rb"), place.pack
            assert source is not None
            for *_, first, after in place.tensors:
                source.seek(first)
                data = source.read(after - first)
                if len(data) != after - first:
                    raise OSError(f"{place.pack.name} is cut off")
                file.write(data)
    finally:
        if source:
            source.close()
