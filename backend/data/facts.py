"""What is known of files that have not changed: the hash of their bytes, and that they decode.

A file is the same while its path, size and time of change are. The facts are kept in one text
file of appended lines (hash with what is known, size, time, path), so that several processes can
add to it; a damaged line is passed over.
"""

from __future__ import annotations

import hashlib
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from backend.system import paths

_FILE_BUFFER = 1 << 20

Known = Literal["s", "p", "t", "b", "m"]
"""Decoded without fault: nothing to tell, a broken colour profile, transparent in part, both; as a mask."""


class FileFacts:
    """Hashes of files by path, size and time of change.

    ``path`` None keeps them in memory only. A folder that cannot be written to costs nothing but
    the time to hash again.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, str] = {}
        self._decoded: dict[str, str] = {}
        self._new: list[str] = []
        self._lock = threading.Lock()
        self._load()

    def content(self, path: str | os.PathLike[str]) -> str:
        """BLAKE2b (128 bits, hexadecimal) of the file's bytes. Raises OSError."""
        stamp = self._stamp(path)
        known = self._known.get(stamp)
        return known or self._add(stamp, _hash_file(path))

    def decodes(self, path: str | os.PathLike[str]) -> bool:
        """True when this very file was decoded without fault before. Raises OSError."""
        return self.decoded_as(path) is not None

    def decoded_as(self, path: str | os.PathLike[str]) -> str | None:
        """What was found when this very file was decoded; None when it was not yet. Raises OSError."""
        return self._decoded.get(self._stamp(path))

    def set_decoded(self, path: str | os.PathLike[str], data: bytes, known: Known = "s") -> None:
        """Remember a file whose bytes were just read and decoded without fault."""
        self._add(self._stamp(path), _digest(data), known)

    def save(self) -> None:
        """Append what was learnt to the file."""
        with self._lock:
            lines, self._new = self._new, []
        if self.path is None or not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write("".join(lines).encode("utf-8", "surrogateescape"))
        except OSError:
            return

    def _add(self, stamp: str, digest: str, known: Known | None = None) -> str:
        with self._lock:
            self._known[stamp] = digest
            if known:
                self._decoded[stamp] = known
            self._new.append(f"{digest}{known or '-'}\t{stamp}\n")
        return digest

    def _load(self) -> None:
        try:
            data = self.path.read_bytes() if self.path else b""
        except OSError:
            return
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        for line in lines:
            digest, _, stamp = line.partition("\t")
            if len(digest) == 33 and stamp.count("\t") == 2:
                self._known[stamp] = digest[:32]
                if digest[32] in get_args(Known):
                    self._decoded[stamp] = digest[32]

    @staticmethod
    def _stamp(path: str | os.PathLike[str]) -> str:
        facts = os.stat(path)  # noqa: PTH116 (called for every picture)
        name = os.path.abspath(path).replace("\n", "\\n").replace("\t", "\\t")  # noqa: PTH100
        return f"{facts.st_size}\t{facts.st_mtime_ns}\t{name}"


def default_facts() -> FileFacts:
    """The facts kept in Atelier's cache folder, shared by this process."""
    return _facts_at(paths.cache_root() / "files.tsv")


@lru_cache(maxsize=4)
def _facts_at(path: Path) -> FileFacts:
    return FileFacts(path)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _hash_file(path: str | os.PathLike[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:  # noqa: PTH123
        while block := file.read(_FILE_BUFFER):
            digest.update(block)
    return digest.hexdigest()
