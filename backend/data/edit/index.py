"""Pictures of some folders and what their caption files hold, kept up to date cheaply."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from backend.data import caption_files
from backend.data.edit.types import MISSING, Caption
from backend.data.headers import EXTENSIONS, HeaderError, read_header
from backend.data.index import is_folder
from backend.errors import InputError

_CODECS = {
    "Shift-JIS": "cp932",
    "GBK": "gbk",
    "Latin-1": "latin-1",
    "UTF-16 without a byte order mark": "utf-16-le",
}
"""Names that are guessed -> Python's names."""

Stamp = tuple[int, int, int]
"""Time of change, size and inode: equal while a file is the same."""


class CaptionFile:
    """The content of one caption file."""

    def __init__(self, data: bytes | None, problem: str = "") -> None:
        self.version = MISSING if data is None else version_of(data)
        self.text, self.encoding, self.problem = _read_text(data or b"")
        if problem:
            self.problem, self.version = problem, "unreadable"

    @cached_property
    def folded(self) -> str:
        return self.text.casefold()


@dataclass(frozen=True)
class _Place:
    """One picture and where its caption is, or would be."""

    id: str
    picture: Path
    path: Path


@dataclass(frozen=True)
class Source:
    """A folder of pictures, and how new caption files in it end (None: as most there do)."""

    folder: Path
    extension: str | None = None
    inside: bool = True
    """Folders directly inside belong to it."""
    told: Mapping[Path, str] | None = None
    """Picture -> caption, where captions do not stand in files beside the pictures; these are shown only."""
    told_by: str = ""
    """Name of the file that they stand in."""
    exact: bool = False
    """A picture's caption is the file of its name with ``extension``, and no other."""


def version_of(data: bytes) -> str:
    """The version of a file with these bytes."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def read_bytes(path: Path) -> bytes | None:
    """The whole file, None when there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def read_file(path: Path) -> CaptionFile:
    """A caption file as it is now. Never raises for what a file may be."""
    try:
        if path.is_dir():
            return CaptionFile(None, "is a folder, not a caption file")
        if path.exists() and path.stat().st_size > caption_files.LIMIT:
            return CaptionFile(None, f"is too large for a caption ({path.stat().st_size / 1e6:.1f} MB)")
        return CaptionFile(read_bytes(path))
    except OSError as error:
        return CaptionFile(None, f"cannot be read ({(error.strerror or str(error)).lower()})")


def _read_text(data: bytes) -> tuple[str, str, str]:
    """(text, encoding, problem); what is not UTF-8 is read as what it looks like."""
    try:
        text = caption_files.decode(data)
        marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return text, "UTF-16" if marked else "UTF-8", ""
    except UnicodeDecodeError:
        guessed = caption_files.guess(data)
    try:
        return data.decode(_CODECS[guessed]), guessed, ""
    except (KeyError, UnicodeDecodeError):
        return "", guessed, f"cannot be read as text (looks like {guessed})"


class Index:
    """All pictures below some folders with their captions. Not safe for several threads by itself."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = tuple(sources)
        self._numbers: dict[Path, int] = {}
        self._places: dict[str, _Place] = {}
        self._files: dict[Path, CaptionFile] = {}
        self._stamps: dict[Path, Stamp | None] = {}
        self._owners: dict[Path, str] = {}
        self._told: dict[str, CaptionFile] = {}

    def refresh(self) -> int:
        """Look at the folders again; gives the number of caption files that were read.

        Raises InputError when a folder cannot be listed.
        """
        places: dict[str, _Place] = {}
        stamps: dict[Path, Stamp | None] = {}
        for source in self.sources:
            if source.told is not None:
                self._take(source, source.told, places)
                continue
            for folder in [source.folder, *(_folders_inside(source.folder) if source.inside else ())]:
                self._look(Source(folder, source.extension, exact=source.exact), places, stamps)
        changed = [path for path, stamp in stamps.items() if self._stamps.get(path, ()) != stamp]
        self._files = {path: file for path, file in self._files.items() if path in stamps}
        for path in changed:
            self._files[path] = CaptionFile(None) if stamps[path] is None else read_file(path)
        self._places, self._stamps = places, stamps
        self._owners = {place.path: place.id for place in reversed(places.values())}
        return len(changed)

    def ids(self) -> Iterable[str]:
        return self._places

    def file(self, id: str) -> CaptionFile:
        return self._told.get(id) or self._files[self._places[id].path]

    def caption(self, id: str) -> Caption:
        """Raises InputError for a picture that is not there (any more)."""
        place = self._places.get(id)
        if place is None:
            raise InputError(f"there is no picture {id!r} here (any more)", next="load the list again")
        file = self.file(id)
        return Caption(id, place.picture, place.path, file.text, file.version, file.encoding, file.problem)

    def update(self, path: Path) -> CaptionFile:
        """Read one caption file again, whether it seems to have changed or not."""
        file = self._files[path] = read_file(path)
        self._stamps[path] = _stamp(path)
        return file

    def owner(self, path: Path) -> str:
        """The first picture that a caption file belongs to; '' when none does."""
        return self._owners.get(path, "")

    def _take(self, source: Source, told: Mapping[Path, str], places: dict[str, _Place]) -> None:
        """Pictures whose captions are shown but not edited here."""
        number = self._numbers.setdefault(source.folder / source.told_by, len(self._numbers))
        for picture, text in told.items():
            id = f"{number}/{os.path.relpath(picture, source.folder)}"
            places[id] = _Place(id, picture, picture)
            self._told[id] = CaptionFile(
                text.encode("utf-8", "replace"), f"has its caption in {source.told_by}: change it there"
            )

    def _look(self, source: Source, places: dict[str, _Place], stamps: dict[Path, Stamp | None]) -> None:
        folder = source.folder
        pictures, others = _list(folder)
        extension = source.extension or _usual_extension(others)
        number = self._numbers.setdefault(folder, len(self._numbers))
        for name in pictures:
            stem = name[: name.rindex(".")]
            found = None if source.exact else _find(folder / name, stem, extension, others)
            path = folder / (found or f"{stem}{extension}")
            places[f"{number}/{name}"] = _Place(f"{number}/{name}", folder / name, path)
            stamps[path] = others.get(path.name)


def _list(folder: Path) -> tuple[list[str], dict[str, Stamp]]:
    """Names of pictures, sorted, and of text files that may be captions with their stamps."""
    pictures: list[str] = []
    others: dict[str, Stamp] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (called for every file)
                if entry.name.startswith(".") or not ending:
                    continue
                if ending in EXTENSIONS:
                    if not is_folder(entry):
                        pictures.append(entry.name)
                elif stamp := _stamp(entry):
                    others[entry.name] = stamp
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({(error.strerror or '').lower()})") from error
    return sorted(pictures), others


def _folders_inside(folder: Path) -> list[Path]:
    """Folders directly inside that may hold pictures; those set aside begin with a dot or underscore."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name[0] not in "._" and is_folder(entry)]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({(error.strerror or '').lower()})") from error
    return [folder / name for name in sorted(names)]


def _usual_extension(names: Iterable[str]) -> str:
    """The ending that most captions here have: .txt unless .caption is more frequent."""
    endings = [name[name.rindex(".") :].lower() for name in names]
    return ".caption" if endings.count(".caption") > endings.count(".txt") else ".txt"


def _find(picture: Path, stem: str, extension: str, names: dict[str, Stamp]) -> str | None:
    found = caption_files.find(stem, extension, (0, 0), names)
    if found or stem.count("_") < 4:
        return found
    try:  # only what may be a face of a larger picture costs a look at its size
        return caption_files.find(stem, extension, read_header(picture).size, names)
    except (HeaderError, OSError):
        return None


def _stamp(path: Path | os.DirEntry[str]) -> Stamp | None:
    """None for what is not there, such as the end of a dead link."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
