"""Tensors of model files, read by rows into memory of their own.

Merges work through files that are larger than the memory they may take. A memory-mapped file counts
as memory as soon as it is touched, so rows are read with plain reads here.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from backend.errors import InputError
from backend.families.store import open_tensors
from backend.system.headers import Header, TensorInfo, read_header
from backend.weights.safefile import dtype_names

Rows = tuple[int, int]
"""First row, one past the last."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[Rows | None], Tensor]
    """The tensor, or some of its rows, on the CPU in its own type and in memory of its own."""

    @property
    def is_float(self) -> bool:
        return self.dtype.is_floating_point


@dataclass(frozen=True)
class TensorFile:
    """A file of tensors with what its header says."""

    path: Path
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    header: Header


def open_file(path: Path) -> TensorFile:
    """Open a safetensors file or a torch checkpoint (read with ``weights_only`` alone).

    Raises:
        InputError: missing, damaged, no model file, or a pickle with code.
    """
    header = read_header(path)
    tensors = _pickled(path) if header.is_pickle else _plain(header)
    return TensorFile(path, tensors, header.metadata, header)


def _plain(header: Header) -> dict[str, Stored]:
    reader = _Reader(header.path)
    types = {name: dtype for dtype, name in dtype_names().items()}
    return {name: _stored(reader, name, info, types) for name, info in header.tensors.items()}


def _stored(reader: _Reader, name: str, info: TensorInfo, types: Mapping[str, torch.dtype]) -> Stored:
    if info.dtype not in types:
        raise InputError(
            f"tensor {name} is stored as {info.dtype}, which cannot be read here",
            where=str(reader.path),
            next="use a float16, bfloat16 or float32 file",
        )
    dtype = types[info.dtype]
    return Stored(name, info.shape, dtype, lambda rows: reader.read(info, dtype, rows))


class _Reader:
    """Reads from one open file, from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("rb")
        self._lock = threading.Lock()

    def read(self, info: TensorInfo, dtype: torch.dtype, rows: Rows | None) -> Tensor:
        shape = info.shape if rows is None else (rows[1] - rows[0], *info.shape[1:])
        tensor = torch.empty(shape, dtype=dtype)
        if not tensor.numel():
            return tensor
        skip = 0 if rows is None else rows[0] * math.prod(info.shape[1:]) * dtype.itemsize
        room = memoryview(cast("Any", tensor.view(-1).view(torch.uint8).numpy()))
        with self._lock:
            self._file.seek(info.start + skip)
            count = self._file.readinto(room)  # type: ignore[attr-defined]
        if count != len(room):
            raise InputError("the file changed while it was read", where=str(self.path), next="try again")
        return tensor


def _pickled(path: Path) -> dict[str, Stored]:
    source = open_tensors(path)

    def reader(name: str) -> Callable[[Rows | None], Tensor]:
        def read(rows: Rows | None) -> Tensor:
            tensor = source.read(name)
            return (tensor if rows is None else tensor[rows[0] : rows[1]]).clone()

        return read

    found: dict[str, Stored] = {}
    for name in source.header.tensors:
        tensor = source.read(name)
        found[name] = Stored(name, tuple(tensor.shape), tensor.dtype, reader(name))
    return found
