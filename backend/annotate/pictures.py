"""Finding the pictures of a folder, and decoding them ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from backend.data import images
from backend.data.headers import EXTENSIONS
from backend.errors import InputError

T = TypeVar("T")
_MOST_THREADS = 8


def find(folder: Path, recursive: bool) -> list[Path]:
    """The pictures of a folder in order of their paths; hidden files and folders are passed over.

    Raises InputError when there is none, telling what is there instead.
    """
    place = folder.expanduser().resolve()
    if not place.exists():
        raise InputError(
            f"Folder not found: {place}",
            next="choose the folder that holds the pictures",
            key="train_data_dir",
        )
    if not place.is_dir():
        raise InputError(f"{place} is a file; a folder of pictures is needed", key="train_data_dir")
    found = [path for parent, names in _walk(place, recursive) for path in _pictures(parent, names)]
    if not found:
        raise _none(place, recursive)
    return found


def _walk(place: Path, recursive: bool) -> Iterator[tuple[Path, list[str]]]:
    def refuse(error: OSError) -> None:
        if error.filename == str(place):
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"the folder {place} cannot be read ({reason})", key="train_data_dir") from error

    for parent, folders, names in os.walk(place, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".") if recursive else []
        yield Path(parent), names


def _pictures(parent: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in sorted(names):
        if os.path.splitext(name)[1].lower() in EXTENSIONS and name[0] != ".":  # noqa: PTH122 (called for every file)
            yield parent / name


def _none(place: Path, recursive: bool) -> InputError:
    inside = sorted(path.name for path in place.iterdir() if path.is_dir() and path.name[0] != ".")
    deep = inside and not recursive
    return InputError(
        f"No images in {place}",
        why=f"it holds {len(inside)} folders: {', '.join(inside[:5])}" if inside else "",
        next="look into the folders inside, too (recursive)"
        if deep
        else "choose the folder that holds the pictures",
        key="recursive" if deep else "train_data_dir",
    )


def load(path: Path) -> images.Array:
    """A picture as upright RGB, (height, width, 3) uint8. Raises DecodeError completing 'name ...'."""
    try:
        return images.decode(path.read_bytes())
    except OSError as error:
        raise images.DecodeError(f"cannot be read ({(error.strerror or str(error)).lower()})") from error


def threads(asked: int | None) -> int:
    """How many threads decode; at least one."""
    return max(1, min(_MOST_THREADS, os.cpu_count() or 1) if asked is None else asked)


def prepared(
    paths: Iterable[Path], prepare: Callable[[images.Array], T], workers: int, ahead: int
) -> Iterator[tuple[Path, T | images.DecodeError]]:
    """(path, what ``prepare`` makes of the picture, or why it cannot be decoded), in order.

    At most ``ahead`` pictures are held, so that memory stays bounded however many there are. Leaving
    the loop early drops what was not begun.
    """

    def work(path: Path) -> T | images.DecodeError:
        try:
            return prepare(load(path))
        except images.DecodeError as error:
            return error

    waiting = iter(paths)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        held: deque[tuple[Path, Future[T | images.DecodeError]]] = deque(
            (path, pool.submit(work, path)) for path in islice(waiting, max(1, ahead))
        )
        while held:
            path, future = held.popleft()
            yield path, future.result()
            held.extend((path, pool.submit(work, path)) for path in islice(waiting, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
