"""Hashes of model files, as other programs name files by them.

A full SHA-256 of a file of some GB takes seconds, so it is kept on disk (by the file's path, size
and time of change) and can be computed beside other work: :func:`prefetch`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import cast

from backend.errors import AtelierError
from backend.system import paths
from backend.weights.safefile import write_text_atomic

_BLOCK = 1 << 22
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000
_MARK_PIECE, _MARK_PIECES = 0x10000, 64
_KEPT = 1000
_lock = threading.Lock()
_running: dict[str, Future[str]] = {}


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits. Waits for a computation of it that is under way.

    Raises:
        OSError: the file cannot be read.
    """
    return _task(path).result()


def prefetch(path: Path) -> None:
    """Begin to compute :func:`sha256` in a thread of its own, unless it is known already."""
    _task(path, background=True)


def legacy_hash(path: Path) -> str:
    """The short hash of old programs: 8 hex digits of SHA-256 over 64 KiB at 1 MiB.

    For a file of less than 1 MiB that is the hash of nothing.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(_LEGACY_START)
        return hashlib.sha256(file.read(_LEGACY_LENGTH)).hexdigest()[:8]


def content_mark(path: Path) -> str:
    """A mark of a file's content that takes milliseconds: 16 hex digits over its size and 64 pieces of it.

    The pieces of 64 KiB lie evenly from the first byte to the last, so that a model which was trained,
    merged or changed otherwise has another mark. A smaller file is read whole.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    apart = max(_MARK_PIECE, (size - _MARK_PIECE) / (_MARK_PIECES - 1))
    with path.open("rb") as file:
        for number in range(_MARK_PIECES):
            file.seek(round(number * apart))
            digest.update(file.read(_MARK_PIECE))
    return digest.hexdigest()


class LegacyWindow:
    """:func:`legacy_hash` of content that comes in pieces."""

    def __init__(self) -> None:
        self._place = 0
        self._digest = hashlib.sha256()

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next piece."""
        start = max(_LEGACY_START - self._place, 0)
        end = max(_LEGACY_START + _LEGACY_LENGTH - self._place, 0)
        self._digest.update(piece[start:end])
        self._place += len(piece)

    def value(self) -> str:
        """The hash of all pieces together, 8 hex digits."""
        return self._digest.hexdigest()[:8]


def _task(path: Path, background: bool = False) -> Future[str]:
    key = _key(path)
    with _lock:
        task = _running.get(key)
        if task is not None:
            return task
        task = _running[key] = Future()
    if background:
        threading.Thread(target=_run, args=(task, key, path), daemon=True, name="sha256").start()
    else:
        _run(task, key, path)
    return task


def _run(task: Future[str], key: str, path: Path) -> None:
    try:
        kept = _read_store().get(key)
        found = kept or _compute(path)
        if not kept:
            _keep(key, found)
        task.set_result(found)
    except BaseException as error:
        with _lock:
            _running.pop(key, None)
        task.set_exception(error)


def _compute(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _key(path: Path) -> str:
    """A file's identity as it is now; holds no readable path."""
    path = path.resolve()
    state = path.stat()
    text = f"{path}\0{state.st_size}\0{state.st_mtime_ns}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _store() -> Path:
    return paths.cache_root() / "sha256.json"


def _read_store() -> dict[str, str]:
    try:
        found: object = json.loads(_store().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, str]", found) if isinstance(found, dict) else {}


def _keep(key: str, value: str) -> None:
    """Add one hash to the store; the newest are kept. A store that cannot be written is no fault."""
    with _lock:
        table = {**_read_store(), key: value}
        text = json.dumps(dict(list(table.items())[-_KEPT:]), indent=0)
        try:
            write_text_atomic(_store(), text)
        except (AtelierError, OSError):
            return
