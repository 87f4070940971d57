"""What is remembered of a folder, so that looking at it again opens none of its files.

Measurements and captions by file name, each valid while the file's size and time of change are the
same. One text file a folder, in Atelier's cache folder and never beside the pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from backend import wholefile
from backend.data import caption_files
from backend.data.caption_files import CaptionText
from backend.data.headers import Header, read_header
from backend.system import paths

_VERSION = 2
"""Counts changes to what is kept; an index of another version is made anew."""

Stamp = tuple[int, int]
"""(size, time of change in ns) of a file."""


class FolderIndex:
    """The remembered facts of one folder. A damaged index, or one that cannot be written, costs time only."""

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        name = hashlib.blake2b(os.fsencode(folder.absolute()), digest_size=16).hexdigest()
        self.path = (root or paths.cache_root() / "folders") / f"{name}.json"
        self.reused = 0
        """Files that did not have to be opened."""
        self.stamps: dict[str, Stamp | None] = {}
        """Stamps of the folder's other files, where its listing gave them."""
        self._headers: dict[str, tuple[Stamp, Header]] = {}
        self._captions: dict[tuple[str, str, bool], tuple[Stamp, CaptionText]] = {}
        self._used: set[Any] = set()
        self._changed = False
        self._load()

    def header(self, path: Path, stamp: Stamp | None) -> Header:
        """As :func:`~backend.data.headers.read_header`; ``stamp`` None reads the file anew."""
        name = path.name if path.parent == self.folder else str(path)
        self._used.add(name)
        known = self._headers.get(name)
        if known is not None and known[0] == stamp:
            self.reused += 1
            return known[1]
        header = read_header(path)
        if stamp is not None:
            self._headers[name] = (stamp, header)
            self._changed = True
        return header

    def caption(self, path: Path, separator: str, wildcards: bool) -> CaptionText:
        """As :func:`~backend.data.caption_files.read`."""
        key = (path.name, separator, wildcards)
        self._used.add(key)
        stamp = self.stamps.get(path.name) or stamp_of(path)
        known = self._captions.get(key)
        if known is not None and known[0] == stamp:
            self.reused += 1
            return known[1]
        text = caption_files.read(path, separator, wildcards)
        if stamp is not None and not text.problem:
            self._captions[key] = (stamp, text)
            self._changed = True
        return text

    def save(self) -> None:
        """Write what was learnt, without files that were not asked for."""
        forgotten = (self._headers.keys() | self._captions.keys()) - self._used
        if not self._changed and len(forgotten) <= len(self._used):
            return
        headers = {
            name: [*stamp, *astuple(header)]
            for name, (stamp, header) in self._headers.items()
            if name in self._used
        }
        captions = [
            [*key, *stamp, *astuple(text)]
            for key, (stamp, text) in self._captions.items()
            if key in self._used
        ]
        self._changed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            wholefile.write_text(self.path, json.dumps([_VERSION, headers, captions]) + "\n")
        except OSError:
            return

    def _load(self) -> None:
        try:
            version, headers, captions = json.loads(self.path.read_bytes())
            if version != _VERSION:
                return
            for name, (length, changed, kind, size, *rest) in headers.items():
                self._headers[name] = ((length, changed), Header(kind, (size[0], size[1]), *rest))
            for name, separator, wildcards, length, changed, *rest in captions:
                self._captions[name, separator, wildcards] = ((length, changed), CaptionText(*rest))
        except (OSError, ValueError, TypeError, KeyError):
            self._headers, self._captions = {}, {}


def stamp_of(path: Path | os.DirEntry[str]) -> Stamp | None:
    """Size and time of change of a file; None when it cannot be asked."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


def is_folder(entry: os.DirEntry[str]) -> bool:
    """False as well for a link that leads in a circle, which is a file that cannot be opened."""
    try:
        return entry.is_dir()
    except OSError:
        return False
