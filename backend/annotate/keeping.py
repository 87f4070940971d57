"""What becomes of the texts: caption files through the journal, or one metadata file.

Nothing that a person wrote is lost: by default only pictures without text get one, and every run is one
edit of the folder's history, which can be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from backend.annotate import metadata
from backend.annotate.settings import Existing
from backend.data import caption_files
from backend.data.edit import Caption, CaptionStore, Change, Preview
from backend.data.edit.store import journal_path
from backend.data.report import count, listing

Join = Callable[[str, str], str]
"""(text that is there, new text) -> text, for append."""
Kept = tuple[Path, str]
"""(picture, why its text was not written)."""


class Keeper(Protocol):
    """Takes the texts of a run."""

    edit: int | None
    """Number of the edit in the folder's history, for undo; None when there is none."""

    def wanted(self, paths: Sequence[Path]) -> tuple[list[Path], list[Path], list[Kept]]:
        """(pictures to describe, those that keep the text they have, those that cannot get one)."""
        ...

    def put(self, texts: Sequence[tuple[Path, str]]) -> list[Kept]:
        """Keep texts; gives those that could not be written. Raises RunFault when nothing can be."""
        ...

    def close(self) -> list[str]:
        """Bring everything to the disk; gives what is worth telling."""
        ...


class CaptionFiles:
    """A caption file beside each picture, exactly of the picture's name and ``extension``.

    Raises InputError when a folder cannot be listed.
    """

    def __init__(
        self, folder: Path, paths: Sequence[Path], extension: str, existing: Existing, join: Join, title: str
    ) -> None:
        self.edit: int | None = None
        self._existing, self._join, self._title = existing, join, title
        self._written: list[Path] = []
        parents = list(dict.fromkeys(path.parent for path in paths))
        self._store = open_store(folder, parents, extension)
        self._ids = {self._store.get(id).picture: id for id in self._store.ids()}

    def wanted(self, paths: Sequence[Path]) -> tuple[list[Path], list[Path], list[Kept]]:
        wanted: list[Path] = []
        keep: list[Path] = []
        refused: list[Kept] = []
        owner: dict[Path, Path] = {}
        for path in paths:
            caption = self._store.get(self._ids[path])
            first = owner.setdefault(caption.path, path)
            if self._existing == "fill" and caption.text.strip():
                keep.append(path)
            elif caption.problem:
                refused.append((path, f"gets no text: {caption.path.name} {caption.problem}"))
            elif self._existing == "append" and caption.text.strip() and (why := foreign(caption)):
                refused.append((path, f"keeps its text: {caption.path.name} {why}"))
            elif first != path:
                refused.append((path, f"shares {caption.path.name} with {first.name}, which gives the text"))
            else:
                wanted.append(path)
        return wanted, keep, refused

    def put(self, texts: Sequence[tuple[Path, str]]) -> list[Kept]:
        changes: list[Change] = []
        for path, text in texts:
            caption = self._store.get(self._ids[path])
            after = text
            if self._existing == "append" and caption.text.strip():
                after = self._join(caption.text, text)
            changes.append(Change(caption.id, caption.path, caption.text, after, caption.version))
        applied = self._store.apply(Preview(self._title, tuple(changes), 0), onto=self.edit)
        self.edit = applied.edit or self.edit
        self._written += [path for path, _ in texts]
        by_file = {change.path: path for change, (path, _) in zip(changes, texts, strict=True)}
        lost = [
            (by_file[one.path], f"keeps its text: {one.path.name} was changed meanwhile")
            for one in applied.conflicts
        ]
        return lost + [(by_file[Path(one.where)], one.what) for one in applied.failed]

    def close(self) -> list[str]:
        """Tells of texts with the other usual ending, which a training may now read no more, or still."""
        own = {self._store.get(self._ids[path]).path for path in self._written}
        others = {path.with_suffix(ending) for path in own for ending in caption_files.USUAL} - own
        found = sorted(path.name for path in others if path.is_file())
        if not found:
            return []
        written = next(iter(own)).suffix
        number = count(len(found), "picture has", "pictures have")
        return [
            f"{number} a text with another ending too, which stays as it is ({listing(found, 5)}); "
            f"a training reads {written} where caption_extension says so"
        ]


class OneFile:
    """All texts in one metadata file, ``.json`` or ``.jsonl``, under ``field``."""

    def __init__(self, folder: Path, path: Path, field: str, existing: Existing, join: Join) -> None:
        self.edit: int | None = None
        self._folder, self._path, self._field = folder.expanduser().resolve(), path.expanduser(), field
        self._existing, self._join = existing, join
        self._entries = metadata.read(self._path) if self._path.exists() else {}
        self._changed = False

    def wanted(self, paths: Sequence[Path]) -> tuple[list[Path], list[Path], list[Kept]]:
        filled = [path for path in paths if self._existing == "fill" and self._now(path).strip()]
        known = set(filled)
        return [path for path in paths if path not in known], filled, []

    def put(self, texts: Sequence[tuple[Path, str]]) -> list[Kept]:
        for path, text in texts:
            now = self._now(path)
            entry = self._entries.setdefault(self._key(path), {})
            entry[self._field] = self._join(now, text) if self._existing == "append" and now.strip() else text
            self._changed = True
        return []

    def close(self) -> list[str]:
        if not self._changed:
            return []
        kept = metadata.write(self._path, self._entries)
        return [f"written into {self._path}"] + ([f"what stood there is kept as {kept.name}"] if kept else [])

    def _key(self, path: Path) -> str:
        return metadata.key_of(path, self._folder, True, self._entries)

    def _now(self, path: Path) -> str:
        return str(self._entries.get(self._key(path), {}).get(self._field) or "")


def foreign(caption: Caption) -> str:
    """Why a text is not worked on: a guess at its encoding may be wrong. '' for UTF-8 and UTF-16."""
    if caption.encoding in ("UTF-8", "UTF-16"):
        return ""
    return f"is not UTF-8 (looks like {caption.encoding}); the dataset doctor can convert it"


def open_store(folder: Path, parents: Iterable[Path], extension: str) -> CaptionStore:
    """The caption files of these folders, whose history is that of ``folder``."""
    ending = extension if extension.startswith(".") else f".{extension}"
    return CaptionStore(
        parents, caption_extension=ending, exact=True, journal=journal_path([folder.expanduser().resolve()])
    )
