"""Metadata of fine-tuning: captions and tags of many pictures in one JSON file.

``.json`` is an object of picture -> {"caption", "tags", ...}; ``.jsonl`` has on each line an object with
"image_path". Entries that are not understood are kept as they are.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from backend.annotate import pictures
from backend.data import caption_files
from backend.errors import InputError, Problem, kind_of
from backend.wholefile import write_text

Entry = dict[str, Any]
Entries = dict[str, Entry]
Which = Literal["caption", "tags"]
"""The field of an entry that a text goes into."""
_LARGEST = 1 << 30


@dataclass
class Merged:
    """What merging did."""

    entries: Entries
    pictures: int
    texts: int = 0
    """Pictures whose text was taken in."""
    missing: list[str] = field(default_factory=list[str])
    """Pictures without a text file."""
    failed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(text file, what is wrong with it)."""
    seconds: float = 0.0
    kept: Path | None = None
    """Where what stood under the output's name is kept."""

    def text(self) -> str:
        """The end of a command line."""
        entries = f"the file has {len(self.entries)} entries"
        lines = [f"took in the text of {self.texts} of {self.pictures} pictures; {entries}"]
        if self.missing:
            more = ", ..." if len(self.missing) > 5 else ""
            lines.append(f"note: {len(self.missing)} have no text file: {', '.join(self.missing[:5])}{more}")
        if self.kept:
            lines.append(f"note: what stood there is kept as {self.kept.name}")
        return "\n".join([*lines, *(f"failed: {name} {what}" for name, what in self.failed)])


def read(path: Path) -> Entries:
    """The entries of a metadata file. Raises InputError naming the line that is wrong."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(
                f"{path.name} is too large ({path.stat().st_size / 1e9:.1f} GB)", where=str(path)
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read ({(error.strerror or str(error)).lower()})", where=str(path)
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path.name} line {line} is not UTF-8", where=str(path)) from None
    return _lines(path, text) if path.suffix.lower() == ".jsonl" else _object(path, text)


def _object(path: Path, text: str) -> Entries:
    data = _parsed(path, text, 1)
    if not isinstance(data, dict):
        raise InputError(f"{path.name} holds no table of pictures", where=str(path))
    table = cast("dict[str, Any]", data)
    wrong = next((key for key, value in table.items() if not isinstance(value, dict)), None)
    if wrong is not None:
        raise InputError(f"{path.name}: what stands under {wrong} is no table", where=str(path))
    return cast(Entries, table)


def _lines(path: Path, text: str) -> Entries:
    found: Entries = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        data = _parsed(path, line, number)
        name = data.get("image_path") if isinstance(data, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{path.name} line {number} names no picture (image_path)", where=str(path))
        found[name] = {k: v for k, v in cast(Entry, data).items() if k != "image_path"}
    return found


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply", where=str(path)) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path.name} line {line + error.lineno - 1}: {error.msg}",
            where=str(path),
            next="correct that line; the file was left as it is",
        ) from None


def write(path: Path, entries: Entries) -> Path | None:
    """Write metadata; a file that stood there is kept beside it, and its new path given.

    Raises InputError or EnvironmentFault when it cannot be written; what stood there is as it was.
    """
    if path.suffix.lower() == ".jsonl":
        lines = (
            json.dumps({"image_path": key, **entry}, ensure_ascii=False) for key, entry in entries.items()
        )
        text = "\n".join(lines) + "\n"
    else:
        text = json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _free_name(path) if path.exists() else None
        if kept is not None:
            shutil.copy2(path, kept)
        write_text(path, text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problem = Problem(
            f"{path.name} cannot be written ({reason})", where=str(path), next="choose another file"
        )
        raise kind_of(error)(problem) from error
    return kept


def _free_name(path: Path) -> Path:
    stem = f"{path.stem}-before-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (
        path.with_name(f"{stem}{f'-{number}' if number else ''}{path.suffix}") for number in range(10_000)
    )
    return next(name for name in names if not name.exists())


def key_of(path: Path, folder: Path, full_path: bool, entries: Mapping[str, Any]) -> str:
    """The name under which the metadata has a picture, or the one it gets.

    ``full_path`` gives the absolute path, else the path from ``folder``; an entry of either kind, with
    or without the picture's ending, is found.
    """
    relative = path.relative_to(folder)
    spellings = [str(path), path.as_posix(), relative.as_posix(), str(relative)]
    spellings += [str(path.with_suffix("")), relative.with_suffix("").as_posix()]
    found = next((spelling for spelling in spellings if spelling in entries), None)
    return found or (str(path) if full_path else relative.as_posix())


def merge(
    folder: Path,
    entries: Mapping[str, Entry],
    which: Which,
    extension: str,
    *,
    full_path: bool = False,
    recursive: bool = False,
) -> Merged:
    """``entries`` with the texts that stand beside the pictures of ``folder``, under ``which``.

    A picture's text replaces what the entry had; other fields stay. ``recursive`` needs names that tell
    folders apart. A multi-line text is joined with blanks (captions) or commas (tags).

    Raises InputError when there is no picture.
    """
    started = time.monotonic()
    place = folder.expanduser().resolve()
    paths = pictures.find(place, recursive)
    ending = extension if extension.startswith(".") else f".{extension}"
    done = Merged({key: dict(entry) for key, entry in entries.items()}, len(paths))
    for path in paths:
        _take(
            done,
            path,
            path.with_name(path.stem + ending),
            which,
            key_of(path, place, full_path, done.entries),
        )
    done.seconds = time.monotonic() - started
    return done


def _take(done: Merged, path: Path, source: Path, which: str, key: str) -> None:
    if not _exists(source):
        done.missing.append(path.name)
        return
    found = caption_files.read(source)
    if found.problem:
        done.failed.append((source.name, found.problem))
        return
    done.entries.setdefault(key, {})[which] = (", " if which == "tags" else " ").join(found.text.splitlines())
    done.texts += 1


def _exists(path: Path) -> bool:
    """Whether anything has that name; a name too long for the system has none."""
    try:
        return path.exists()
    except OSError:
        return False
