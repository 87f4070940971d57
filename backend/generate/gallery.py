"""Everything that was made: an index over the folder of pictures, with the text inside each.

The pictures are the truth. The index is a small SQLite file that may be deleted at any time: it
holds what was read from each picture's header, and is read again where a file changed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

KINDS = ("picture", "cell")
_SCHEMA = """
create table if not exists pictures (
  path text primary key, changed integer, size integer, width integer, height integer, kind text, text text,
  search text
);
create index if not exists by_time on pictures (changed desc, path desc);
"""
_ENDINGS = (".png",)
_GRIDS = "grids"
_ASIDE = {"inputs"}
"""Folders whose pictures were given, not made."""
_BATCH = 500


@dataclass(frozen=True)
class Entry:
    """One picture that was made."""

    path: str
    """Relative to the folder of pictures, with forward slashes."""
    changed: int
    """Nanoseconds since 1970."""
    width: int
    height: int
    kind: str
    text: str
    """Its ``parameters``."""


@dataclass(frozen=True)
class Found:
    """One page of a search."""

    entries: tuple[Entry, ...]
    total: int


class Gallery:
    """The pictures below ``root``, remembered in the file ``index``."""

    def __init__(self, root: Path, index: Path) -> None:
        self.root = root
        self._index = index

    def refresh(self) -> int:
        """Take in what was added, changed or deleted. Returns how many pictures there are."""
        with self._open() as base:
            known = {
                row[0]: (row[1], row[2]) for row in base.execute("select path, changed, size from pictures")
            }
            there: set[str] = set()
            new: list[tuple[object, ...]] = []
            for path, changed, size in _pictures(self.root):
                there.add(path)
                if known.get(path) != (changed, size):
                    new.append(self._row(path, changed, size))
                if len(new) >= _BATCH:
                    _put(base, new)
                    new = []
            _put(base, new)
            base.executemany(
                "delete from pictures where path = ?", [(path,) for path in known.keys() - there]
            )
            base.commit()
            return len(there)

    def search(self, words: str = "", kind: str = "", first: int = 0, count: int = 60) -> Found:
        """The newest pictures whose text or name holds every one of ``words``, whatever the case.

        Args:
            kind: ``picture``, ``cell`` (of a grid), or '' for both.
            first: how many of them to skip.
        """
        where, values = ["1"], []
        for word in words.split():
            where.append("search like ? escape '\\'")
            values.append(f"%{_literal(word.casefold())}%")
        if kind:
            where.append("kind = ?")
            values.append(kind)
        clause = " and ".join(where)
        with self._open() as base:
            total = base.execute(f"select count(*) from pictures where {clause}", values).fetchone()[0]
            rows = base.execute(
                "select path, changed, width, height, kind, text from pictures "
                f"where {clause} order by changed desc, path desc limit ? offset ?",
                [*values, count, first],
            )
            return Found(tuple(Entry(*row) for row in rows), total)

    def file(self, path: str) -> Path | None:
        """The picture of that relative path, None when it is none of ours."""
        found = (self.root / path).resolve()
        inside = found.is_relative_to(self.root.resolve()) and found.suffix.lower() in _ENDINGS
        return found if inside and found.is_file() else None

    def _row(self, path: str, changed: int, size: int) -> tuple[object, ...]:
        width, height, text = _header(self.root / path)
        kind = "cell" if path.split("/")[0] == _GRIDS else "picture"
        return path, changed, size, width, height, kind, text, f"{path}\n{text}".casefold()

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection, None, None]:
        self._index.parent.mkdir(parents=True, exist_ok=True)
        try:
            base = _connected(self._index)
        except sqlite3.OperationalError:
            raise  # busy or not to be written: no reason to throw it away
        except sqlite3.DatabaseError:
            self._index.unlink(missing_ok=True)  # damaged: everything in it can be read again
            base = _connected(self._index)
        with closing(base):
            yield base


def _connected(index: Path) -> sqlite3.Connection:
    base = sqlite3.connect(index, timeout=20)
    try:
        base.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        base.close()
        raise
    return base


def _put(base: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    base.executemany("insert or replace into pictures values (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _pictures(root: Path) -> Iterator[tuple[str, int, int]]:
    """(path, changed, size) of every picture below ``root``, contact sheets and hidden ones aside."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _ASIDE]
        below = Path(folder).relative_to(root)
        for name in names:
            if not name.lower().endswith(_ENDINGS) or name.startswith(".") or _is_sheet(below, name):
                continue
            try:
                facts = (Path(folder) / name).stat()
            except OSError:
                continue
            yield (below / name).as_posix(), facts.st_mtime_ns, facts.st_size


def _is_sheet(folder: Path, name: str) -> bool:
    return folder.parts[:1] == (_GRIDS,) and name == "sheet.png"


def _header(path: Path) -> tuple[int, int, str]:
    """Width, height and ``parameters`` text, without reading the pixels; zeros when it is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width, image.height, str(image.info.get("parameters", ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0, ""


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
