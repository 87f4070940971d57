"""Tensors in files: read by name without a second copy, written one at a time.

Reading in the file's own type gives views of the memory-mapped file (private: changing them does
not change the file). Reading in another type goes through one small buffer, so that a load needs
about the memory of the result.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch
from torch import Tensor

from backend.errors import InputError, RunFault
from backend.system.headers import Header, TensorInfo, read_header, read_safetensors
from backend.system.pickles import TRAINER_PACKAGES, globals_in
from backend.wholefile import replacing

_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PIECE = 8 << 20
"""Bytes read at a time where a conversion is needed."""

_NAMES = {dtype: name for name, dtype in _TYPES.items()}


Rows = tuple[int, int]
"""First row, and one past the last."""


class TensorSource(Protocol):
    """A file of tensors."""

    @property
    def header(self) -> Header: ...

    def read(self, name: str, dtype: torch.dtype | None = None, rows: Rows | None = None) -> Tensor:
        """The tensor (or some of its rows) on the CPU; floating ones in ``dtype`` when it is given."""
        ...


def open_tensors(path: Path, *, mapped: bool = True) -> TensorSource:
    """Open a safetensors file or a torch checkpoint (read with ``weights_only`` alone).

    With ``mapped`` off all that is read of a safetensors file is copied into memory of its own.

    Raises:
        InputError: missing, damaged, no model file, or a pickle with code.
    """
    header = read_header(path)
    return _PickleSource(header) if header.is_pickle else _SafetensorsSource(header, mapped=mapped)


class _SafetensorsSource:
    def __init__(self, header: Header, *, mapped: bool = True) -> None:
        self.header = header
        self._mapped = mapped
        self._file: IO[bytes] = header.path.open("rb")
        self._map: mmap.mmap | None = None
        self._buffer = bytearray(_PIECE)

    def read(self, name: str, dtype: torch.dtype | None = None, rows: Rows | None = None) -> Tensor:
        info = self.header.tensors[name]
        own = _own_type(self.header.path, name, info)
        if rows is not None:
            info = _some_rows(info, rows)
        if info.elements == 0:
            return torch.empty(info.shape, dtype=own)
        if dtype is None or dtype == own or not own.is_floating_point:
            return self._view(info, own) if self._mapped else self._converted(info, own, own)
        return self._converted(info, own, dtype)

    def _view(self, info: TensorInfo, own: torch.dtype) -> Tensor:
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        if info.start % own.itemsize:  # old writers did not align
            return self._converted(info, own, own)
        flat = torch.frombuffer(self._map, dtype=own, count=info.elements, offset=info.start)
        return flat.view(info.shape)

    def _converted(self, info: TensorInfo, own: torch.dtype, dtype: torch.dtype) -> Tensor:
        """The tensor in memory of its own, read piece by piece through the buffer."""
        result = torch.empty(info.elements, dtype=dtype)
        step = len(self._buffer) // own.itemsize
        self._file.seek(info.start)
        for start in range(0, info.elements, step):
            count = min(step, info.elements - start)
            piece = memoryview(self._buffer)[: count * own.itemsize]
            if self._file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                raise InputError(
                    "the file changed while it was read", where=str(self.header.path), next="try again"
                )
            result[start : start + count] = torch.frombuffer(piece, dtype=own, count=count)
        return result.view(info.shape)


class _PickleSource:
    def __init__(self, header: Header) -> None:
        self.header = header
        self._tensors = _load_pickle(header.path)

    def read(self, name: str, dtype: torch.dtype | None = None, rows: Rows | None = None) -> Tensor:
        tensor = self._tensors[name].detach()
        tensor = tensor if rows is None else tensor[slice(*rows)]
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _some_rows(info: TensorInfo, rows: Rows) -> TensorInfo:
    """Rows of a tensor lie side by side in the file."""
    first, last = rows
    row = (info.end - info.start) // info.shape[0]
    shape = (last - first, *info.shape[1:])
    return TensorInfo(info.dtype, shape, info.start + first * row, info.start + last * row)


def _own_type(path: Path, name: str, info: TensorInfo) -> torch.dtype:
    dtype = _TYPES.get(info.dtype)
    if dtype is None:
        raise InputError(
            f"tensor {name} is stored as {info.dtype}, which cannot be read here",
            where=str(path),
            next="use a float16, bfloat16 or float32 file",
        )
    return dtype


class _Inert:
    """Stands for the classes of trainers that old checkpoints name beside their weights."""


def _load_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict of a torch file; memory-mapped when it is a zip."""
    import zipfile

    stand_ins: list[Any] = [(_Inert, name) for name in globals_in(path) if name.startswith(TRAINER_PACKAGES)]
    try:
        with torch.serialization.safe_globals(stand_ins):
            content: object = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be read",
            where=str(path),
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            next="use the model's safetensors file",
            detail=str(error),
        ) from error
    table = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    inner = table.get("state_dict", table)
    return {name: value for name, value in inner.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; ``make`` is called when its turn comes."""

    name: str
    shape: Sequence[int]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def write_tensors(path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, holding one tensor at a time.

    It goes to a temporary name beside ``path``, is flushed, its header is read again, and only then
    it takes its name.

    Raises:
        RunFault: it cannot be written (no room, no permission).
    """
    ordered = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    try:
        with replacing(path) as new:
            _write(new.file, ordered, metadata)
            new.settle()
            written = read_safetensors(new.path)
            assert len(written.tensors) == len(ordered), "a name stands twice among the entries"
    except OSError as error:
        raise RunFault(
            f"cannot write {path} ({(error.strerror or str(error)).lower()})",
            where=str(path),
            next="free some room or choose another folder, then try again",
        ) from error


def _write(file: IO[bytes], ordered: Sequence[Entry], metadata: Mapping[str, str]) -> None:
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for entry in ordered:
        start, end = end, end + math.prod(entry.shape) * entry.dtype.itemsize
        table[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    raw = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    file.write(struct.pack("<Q", len(raw)) + raw)
    for entry in ordered:
        tensor = entry.make().detach().to("cpu", entry.dtype).contiguous()
        assert tuple(tensor.shape) == tuple(entry.shape), entry.name
        file.write(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy()))
