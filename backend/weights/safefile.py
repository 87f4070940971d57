"""Files that are whole or not there at all.

Everything goes to a temporary name in the same folder, is flushed to the disk, read back as far as
that is cheap, and then renamed. A fault in the middle leaves what stood under the final name before.
Whether that may be replaced is the caller's decision.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import struct
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from backend.errors import EnvironmentFault, Problem, RunFault, StorageFault, disk_is_full
from backend.system.headers import readable_size
from backend.wholefile import NewFile, replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The format's names of dtypes, in the order in which its reference writer lays tensors out (so that
# every tensor is aligned). Dtypes of a name that this torch lacks are left out of the table.
_LAYOUT = (
    ("U64", "uint64"), ("I64", "int64"), ("F64", "float64"), ("C64", "complex64"), ("F32", "float32"),
    ("U32", "uint32"), ("I32", "int32"), ("BF16", "bfloat16"), ("F16", "float16"), ("U16", "uint16"),
    ("I16", "int16"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"), ("I8", "int8"),
    ("U8", "uint8"), ("BOOL", "bool"),
)  # fmt: skip


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` to ``path``, checked by re-reading the header.

    Equal tensors and metadata give equal bytes. Tensors are written one after the other: at most one
    is copied at a time.

    Raises:
        RunFault: a tensor has values that are not finite, the disk is full, or the file that
            arrived is not the one that was written. Nothing is left under ``path`` then but what
            stood there before.
        EnvironmentFault: the folder cannot be written to.
    """
    check_finite(tensors)
    with writing(path, sum(map(_bytes, tensors.values()))) as new:
        for piece in serialised(tensors, metadata or {}):
            new.file.write(piece)
        new.settle()
        check_arrived(path, new.path, tensors)


def write_torch(path: Path, tensors: Mapping[str, Tensor], counts: Mapping[str, int] | None = None) -> None:
    """Write ``tensors`` as a pickled ``.ckpt`` or ``.pt``, checked by re-reading. Raises as above.

    Args:
        counts: ``epoch`` and ``global_step``: they stand beside the tensors then, which are under
            ``state_dict``, as in checkpoints of trainers.
    """
    check_finite(tensors)
    with writing(path, sum(map(_bytes, tensors.values()))) as new:
        content = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        pickle_into(new.file, content if counts is None else {"state_dict": content, **counts})
        new.settle()
        if _torch_shapes(new.path) != {name: tensor.shape for name, tensor in tensors.items()}:
            raise RunFault(_not_arrived(path))


def pickle_into(file: IO[bytes], content: Any) -> None:
    """``torch.save``, but for a write that fails: torch has an error of its own for it, which tells no cause.

    Raises:
        OSError: as the file system reports it.
    """
    import torch

    watched = _Watched(file)
    try:
        torch.save(content, watched)  # type: ignore[arg-type]
    except RuntimeError:
        if watched.fault is not None:
            raise watched.fault from None
        raise


class _Watched:
    """A file that remembers why a write failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.fault: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.fault = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text with line ends as given. Raises RunFault or EnvironmentFault as above."""
    content = text.encode("utf-8")
    with writing(path, len(content)) as new:
        new.file.write(content)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors with NaN or infinite values, naming the first and how many there are.

    Raises:
        RunFault: see above.
    """
    for name, tensor in tensors.items():
        count = nonfinite(tensor)
        if count:
            raise RunFault(
                f"{count} of {tensor.numel()} values in {name} are not finite",
                why="training ran away, or the numbers are too large for the file's precision "
                f"({str(tensor.dtype).removeprefix('torch.')})",
                next="use the last good file, a lower learning rate, or a wider precision to save in",
            )


def nonfinite(tensor: Tensor) -> int:
    """How many values are NaN or infinite. Smallest and largest value tell whether to count."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0
    values = tensor if tensor.element_size() > 1 else tensor.float()
    low, high = values.aminmax()
    if math.isfinite(low.item()) and math.isfinite(high.item()):
        return 0
    return int((~values.isfinite()).sum())


def serialised(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The content of a safetensors file: first its header, then each tensor's values."""
    header, names = header_bytes(tensors, metadata)
    yield header
    for name in names:
        yield raw_bytes(tensors[name])


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's values as the file holds them: row by row, little-endian."""
    import torch

    tensor = tensor.detach().to("cpu").contiguous()
    if sys.byteorder == "big" and tensor.element_size() > 1:
        tensor = tensor.view(torch.uint8).view(-1, tensor.element_size()).flip(-1).contiguous()
    return memoryview(cast("Any", tensor.reshape(-1).view(torch.uint8).numpy()))


def file_order(tensors: Mapping[str, Shaped]) -> list[str]:
    """Names in the order in which their values stand in a file."""
    rank = {name: place for place, name in enumerate(dtype_names().values())}
    return sorted(tensors, key=lambda name: (rank[dtype_names()[tensors[name].dtype]], name))


def dtype_names() -> dict[Any, str]:
    """torch dtype -> its name in the format."""
    import torch

    return {getattr(torch, own): name for name, own in _LAYOUT if hasattr(torch, own)}


class Shaped(Protocol):
    """A tensor, or the plan of one."""

    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def dtype(self) -> torch.dtype: ...


def header_bytes(tensors: Mapping[str, Shaped], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The file's first bytes, and the order of the tensors that follow."""
    dtypes, names = dtype_names(), file_order(tensors)
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in names:
        end = start + _bytes(tensors[name])
        shape = list(tensors[name].shape)
        table[name] = {"dtype": dtypes[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, names


def _bytes(tensor: Shaped) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def check_arrived(path: Path, partial: Path, tensors: Mapping[str, Shaped]) -> None:
    """Read the header of what was written (``partial``) and compare names and shapes.

    Raises:
        RunFault: they are not those of ``tensors``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(partial, "pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise RunFault(_not_arrived(path, str(error))) from error
    if found != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise RunFault(_not_arrived(path))


def _torch_shapes(path: Path) -> dict[str, torch.Size]:
    """Shapes in a pickled file. The file's mapping ends with this call: Windows renames no mapped file."""
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {name: tensor.shape for name, tensor in found.get("state_dict", found).items()}


def _not_arrived(path: Path, detail: str = "") -> Problem:
    return Problem(
        f"{path.name} was not written as it should be",
        where=str(path),
        why="reading it back gave something else, so the disk or its driver is at fault",
        next="choose a folder on another disk",
        detail=detail,
    )


@contextmanager
def writing(path: Path, size: int) -> Generator[NewFile, None, None]:
    """A new file that takes the name ``path`` at the end, with faults in words."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, size)
        with replacing(path) as new:
            yield new
    except OSError as error:
        raise _fault(path, size, error) from error


def _check_space(path: Path, size: int) -> None:
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fault(path: Path, size: int, error: OSError) -> RunFault | EnvironmentFault:
    """A failed write in words."""
    where = str(path)
    if disk_is_full(error):
        free = shutil.disk_usage(path.parent).free
        return StorageFault(
            f"the disk is full: {path.name} needs {readable_size(size)}, {readable_size(free)} are free",
            where=where,
            why=f"{size} bytes are needed, {free} are free",
            next="free some space or choose a folder on another disk; earlier files are untouched",
        )
    reason = (error.strerror or str(error)).lower()
    return EnvironmentFault(
        f"cannot write to {path.parent} ({reason})",
        where=where,
        next="choose another folder, or allow writing to this one",
    )
