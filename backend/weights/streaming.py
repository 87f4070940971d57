"""Files written while their tensors are made: a few rows at a time, on all cores.

What is in memory at once is a handful of pieces of some MB, however large the file is.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backend.errors import RunFault
from backend.weights.metadata import ContentHashes
from backend.weights.reading import Rows, Stored
from backend.weights.safefile import (
    check_arrived,
    file_order,
    header_bytes,
    nonfinite,
    raw_bytes,
    write_torch,
    writing,
)

Progress = Callable[[str, int, int], None]
"""(what is done, how many are done, how many there are)."""
PIECE = 2 << 20
"""Elements of a tensor that are in work at a time."""


def silent(doing: str, done: int, total: int) -> None:
    """Progress that nobody wants to hear."""


@dataclass(frozen=True)
class Planned:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[Rows | None], Tensor]
    """All of it, or some rows; any floating type is brought to ``dtype``."""
    by_rows: bool = True
    """Whether rows can be made one by one."""


def copied(stored: Stored, dtype: torch.dtype | None = None, name: str | None = None) -> Planned:
    """A tensor of a file as it is; floating ones in ``dtype`` when it is given."""
    target = dtype if dtype is not None and stored.is_float else stored.dtype
    return Planned(name or stored.name, stored.shape, target, stored.read)


def threads() -> int:
    """How many pieces are worked on at once: as many as there are cores, up to 8."""
    return max(1, min(8, os.cpu_count() or 1))


def write_planned(
    path: Path,
    planned: Sequence[Planned],
    metadata: Mapping[str, str],
    progress: Progress = silent,
    counts: Mapping[str, int] | None = None,
    hashed: bool = False,
) -> None:
    """Write a safetensors file (or a torch file, by the name's ending), checked for finite values.

    It takes its name when all tensors are on the disk and its header has been read again. ``counts``
    is for torch files: see :func:`backend.weights.safefile.write_torch`. ``hashed`` adds the hashes of
    networks to the metadata: their places in the header are filled in when all values have gone by.

    Raises:
        RunFault: values are not finite, the disk is full, or what arrived is not what was written.
            Nothing is left under ``path`` then but what stood there before.
        EnvironmentFault: the folder cannot be written to.
    """
    table = {item.name: item for item in planned}
    assert len(table) == len(planned), "a name stands twice"
    if path.suffix != ".safetensors":
        write_torch(path, {item.name: _whole(item) for item in planned}, counts)
        return
    size = sum(math.prod(item.shape) * item.dtype.itemsize for item in planned)
    with writing(path, size) as new:
        hashes = ContentHashes(table, metadata) if hashed else None
        new.file.write(_header(table, metadata, hashes))
        order = [table[name] for name in file_order(table)]
        for place, piece in _made(order):
            values = raw_bytes(piece)
            new.file.write(values)
            if hashes is not None:
                hashes.update(values)
            progress("writing", place + 1, len(order))
        if hashes is not None:
            new.file.seek(0)
            new.file.write(_header(table, metadata, hashes))
        new.settle()
        check_arrived(path, new.path, table)


def _header(table: Mapping[str, Planned], metadata: Mapping[str, str], hashes: ContentHashes | None) -> bytes:
    return header_bytes(table, {**metadata, **(hashes.values() if hashes else {})})[0]


def _made(order: Sequence[Planned]) -> Iterator[tuple[int, Tensor]]:
    """(place of the tensor, its next piece), made ahead by several threads, in order."""
    pending: deque[tuple[int, Future[Tensor]]] = deque()
    count = threads()
    with ThreadPoolExecutor(count) as pool:
        try:
            for place, item in enumerate(order):
                for rows in _pieces(item):
                    pending.append((place, pool.submit(_piece, item, rows)))
                    if len(pending) > 2 * count:
                        first, future = pending.popleft()
                        yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _pieces(item: Planned) -> Iterator[Rows | None]:
    width = math.prod(item.shape[1:])
    if not item.by_rows or not item.shape or math.prod(item.shape) <= PIECE:
        yield None
        return
    step = max(1, PIECE // width)
    for start in range(0, item.shape[0], step):
        yield start, min(start + step, item.shape[0])


def _piece(item: Planned, rows: Rows | None) -> Tensor:
    tensor = item.make(rows)
    result = tensor.to(item.dtype)
    expected = item.shape if rows is None else (rows[1] - rows[0], *item.shape[1:])
    assert tuple(result.shape) == expected, f"{item.name} came as {tuple(result.shape)}, not {expected}"
    bad = nonfinite(result)
    if bad:
        raise RunFault(
            f"{bad} non-finite values in {item.name}",
            why="they stand in an input already"
            if nonfinite(tensor)
            else f"its numbers are too large for {str(item.dtype).removeprefix('torch.')}",
            next="nothing was written; check the inputs, or save in bf16 or float",
        )
    return result


def _whole(item: Planned) -> Tensor:
    parts = [_piece(item, rows) for rows in _pieces(item)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
