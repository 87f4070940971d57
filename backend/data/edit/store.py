"""Captions of a dataset, edited one by one and in bulk without ever losing one.

An edit names the version of the file that it was based on; when the file changed meanwhile, in
another tab or another program, nothing is written and both texts are given back. Every edit is in a
journal before a file is touched, so that it can be undone after any restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from backend.data.edit import operations
from backend.data.edit.files import replace_bytes, write_problem
from backend.data.edit.index import CaptionFile, Index, Source, read_bytes, version_of
from backend.data.edit.journal import FileChange, Journal
from backend.data.edit.types import (
    MISSING,
    Applied,
    Caption,
    Change,
    Conflict,
    Filter,
    HistoryItem,
    Page,
    Preview,
    TagStatistics,
)
from backend.data.types import DatasetPlan, Picture
from backend.errors import EnvironmentFault, InputError, Problem, RunFault
from backend.filelock import exclusive
from backend.system import paths

Progress = Callable[[int, int], None]
_T = TypeVar("_T")

_FREQUENT = 100
"""Tags whose pairs are counted."""
_WRITERS = 16
_lock = threading.RLock()
"""One edit at a time in this process; a lock file does the same between processes."""


@dataclass(frozen=True)
class _Write:
    """One caption file and what it is to hold."""

    id: str
    path: Path
    data: bytes
    version: str


class CaptionStore:
    """The captions of one folder of pictures, or of several.

    Folders directly inside a given one belong to it. ``caption_extension`` is how new caption files
    end; by default as most in their folder do. ``exact`` leaves folders inside out, and takes no file
    of another ending or name for a picture's caption. ``journal`` is the file of edits; by default one
    under Atelier's home that belongs to these folders.

    Raises InputError when a folder cannot be listed.
    """

    def __init__(
        self,
        folders: Path | Iterable[Path],
        *,
        caption_extension: str | None = None,
        separator: str = ",",
        exact: bool = False,
        journal: Path | None = None,
    ) -> None:
        given = [folders] if isinstance(folders, Path) else list(folders)
        places = [folder.expanduser().resolve() for folder in given]
        self._set_up([Source(p, caption_extension, inside=not exact, exact=exact) for p in places], journal)
        self.separator = separator

    @classmethod
    def of_plan(cls, plan: DatasetPlan, *, journal: Path | None = None) -> CaptionStore:
        """The captions of every folder of a plan, with the ending and separator it uses.

        Captions that stand in a metadata file are shown, and not edited.
        """
        subsets = [subset for dataset in plan.datasets for subset in dataset.subsets]
        store = cls.__new__(cls)
        store._set_up(_sources(plan), journal)
        store.separator = subsets[0].captions.caption_separator if subsets else ","
        return store

    def _set_up(self, sources: list[Source], journal: Path | None) -> None:
        self._index = Index(sources)
        self._journal = Journal(journal or journal_path([source.folder for source in sources]))
        self._index.refresh()
        self._journal.refresh()

    def refresh(self) -> int:
        """Take in what changed on disk; gives the number of caption files that were read again."""
        with _lock:
            self._journal.refresh()
            return self._index.refresh()

    # Looking

    def get(self, id: str) -> Caption:
        """One picture's caption. Raises InputError when there is no such picture."""
        with _lock:
            return self._index.caption(id)

    def ids(self, wanted: Filter | None = None) -> list[str]:
        """The pictures whose captions pass, in order of folders and names. Raises InputError (expression)."""
        with _lock:
            return list(self._matching(wanted or Filter()))

    def page(self, wanted: Filter | None = None, offset: int = 0, count: int = 100) -> Page:
        """A slice of the captions that pass."""
        ids = self.ids(wanted)
        with _lock:
            items = tuple(self._index.caption(id) for id in ids[max(0, offset) : max(0, offset) + count])
        return Page(len(ids), max(0, offset), items)

    def statistics(self, wanted: Filter | None = None, pairs: int = 50) -> TagStatistics:
        """How often each tag occurs, and which frequent ones occur together."""
        with _lock:
            sets = [self._tags(self._index.file(id)) for id in self._matching(wanted or Filter())]
        counts = Counter(tag for tags in sets for tag in tags)
        ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        frequent = set(list(ordered)[:_FREQUENT])
        together = Counter(pair for tags in sets for pair in combinations(sorted(tags & frequent), 2))
        top = sorted(together.items(), key=lambda item: (-item[1], item[0]))[:pairs]
        return TagStatistics(len(sets), ordered, tuple((a, b, number) for (a, b), number in top))

    def history(self, count: int = 50) -> list[HistoryItem]:
        """Edits that can be undone or made again, newest first."""
        with _lock:
            self._journal.refresh()
            return self._journal.history(count)

    # Editing

    def edit(self, id: str, text: str, version: str) -> Applied:
        """Give one picture the caption ``text``, which was written on the base of ``version``."""
        caption = self.get(id)
        if caption.problem:
            raise InputError(f"{caption.path.name} {caption.problem}", where=str(caption.path))
        write = _Write(id, caption.path, _encode(text), version)
        return self._apply(f"Edit {caption.picture.name}", [write])

    def preview(
        self,
        name: str,
        values: Mapping[str, str] | None = None,
        wanted: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> Preview:
        """What a bulk operation would change in the pictures that pass, or in those named.

        Nothing is written. Raises InputError for an operation or a value that cannot be used.
        """
        values = values or {}
        operations.checked(name, values)
        changes: dict[Path, Change] = {}
        looked_at: set[Path] = set()
        with _lock:
            for id in self.ids(wanted) if ids is None else ids:
                caption = self._index.caption(id)
                looked_at.add(caption.path)
                if caption.problem or caption.path in changes:
                    continue
                after = operations.run(name, caption.text, values, self.separator)
                if after != caption.text:
                    changes[caption.path] = Change(id, caption.path, caption.text, after, caption.version)
        return Preview(
            operations.title_of(name, values), tuple(changes.values()), len(looked_at) - len(changes)
        )

    def apply(self, preview: Preview, progress: Progress | None = None, onto: int | None = None) -> Applied:
        """Make the changes of a preview. What changed since stays as it is and is a conflict.

        ``progress`` is told how many files are written, and how many there are. ``onto`` is an edit of
        which these changes are a further part, so that one undo takes back all of it.
        """
        writes = [_Write(c.id, c.path, _encode(c.after), c.version) for c in preview.changes]
        return self._apply(preview.title, writes, progress, onto)

    def undo(self) -> Applied | None:
        """Take back the newest edit; None when there is none. What changed since is left as it is."""
        with self._alone():
            item = self._journal.to_undo()
            if item is None:
                return None
            changes = [change.reversed() for change in self._journal.changes(item.id)]
            self._record(lambda: self._journal.mark("undo", item.id))
            return self._move(f"Undo: {item.title}", changes)

    def redo(self) -> Applied | None:
        """Make the edit again that was undone last; None when there is none."""
        with self._alone():
            item = self._journal.to_redo()
            if item is None:
                return None
            changes = self._journal.changes(item.id)
            self._record(lambda: self._journal.mark("redo", item.id))
            return self._move(f"Redo: {item.title}", changes)

    def _apply(
        self,
        title: str,
        writes: Sequence[_Write],
        progress: Progress | None = None,
        onto: int | None = None,
    ) -> Applied:
        edit = onto
        with self._alone():
            conflicts: list[Conflict] = []
            changes: list[FileChange] = []
            for write in writes:
                before = self._now(write.path)
                if before == write.data:
                    self._index.update(write.path)
                elif (MISSING if before is None else version_of(before)) != write.version:
                    conflicts.append(self._conflict(write.path, write.data))
                else:
                    changes.append(FileChange(write.path, before, write.data))
            if changes and not (onto and self._record(lambda: self._journal.extend(onto, changes))):
                edit = self._record(lambda: self._journal.add(title, changes))
            applied = self._move(title, changes, progress)
            same = [w.path for w in writes if w.path not in {c.path for c in changes}]
            written = applied.written if changes else tuple(self._captions(same)) if not conflicts else ()
            return Applied(title, written, (*conflicts, *applied.conflicts), applied.failed, edit)

    def _move(self, title: str, changes: Iterable[FileChange], progress: Progress | None = None) -> Applied:
        """Bring files from ``before`` to ``after``; the journal knows of it already."""
        changes = list(changes)
        # Each file waits for the disk; many at once wait together.
        with ThreadPoolExecutor(min(_WRITERS, max(1, len(changes)))) as pool:
            outcomes: list[bool | OSError] = []
            for outcome in pool.map(_put, changes):
                outcomes.append(outcome)
                if progress is not None and (len(outcomes) % 50 == 0 or len(outcomes) == len(changes)):
                    progress(len(outcomes), len(changes))
        written: list[Path] = []
        conflicts: list[Conflict] = []
        failed: list[Problem] = []
        for change, outcome in zip(changes, outcomes, strict=True):
            self._index.update(change.path)
            if isinstance(outcome, OSError):
                failed.append(write_problem(change.path, outcome))
            elif outcome:
                written.append(change.path)
            else:
                conflicts.append(self._conflict(change.path, change.after))
        return Applied(title, tuple(self._captions(written)), tuple(conflicts), tuple(failed))

    def _now(self, path: Path) -> bytes | None:
        try:
            return read_bytes(path)
        except OSError as error:
            raise RunFault(
                f"{path.name} cannot be read ({(error.strerror or str(error)).lower()})", where=str(path)
            ) from error

    def _conflict(self, path: Path, wanted: bytes | None) -> Conflict:
        file = self._index.update(path)
        yours = CaptionFile(wanted).text
        return Conflict(self._index.owner(path), path, yours, file.text, file.version)

    def _captions(self, files: Iterable[Path]) -> Iterable[Caption]:
        owners = (self._index.owner(path) for path in files)
        return [self._index.caption(id) for id in owners if id]

    def _record(self, write: Callable[[], _T]) -> _T:
        """Write into the journal. Raises RunFault; then no caption was touched."""
        try:
            return write()
        except OSError as error:
            raise RunFault(
                f"the record of edits cannot be written ({(error.strerror or str(error)).lower()})",
                where=str(self._journal.path),
                why="no caption was changed, since the change could not be undone",
                next="free some space and try again",
            ) from error

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Hold both locks, with the journal as it is now."""
        lock = paths.home() / "edits" / ".lock"
        with _lock, contextlib.ExitStack() as held:
            try:
                held.enter_context(exclusive(lock))
            except (EnvironmentFault, OSError) as error:
                raise EnvironmentFault(
                    "captions cannot be edited: the lock file cannot be had",
                    where=str(lock),
                    why=str(error),
                    next="close other programs that edit captions, check that you may write there, try again",
                ) from error
            self._journal.refresh()
            yield

    # Filtering

    def _matching(self, wanted: Filter) -> Iterable[str]:
        passes = _Test(wanted, self.separator)
        return (id for id in self._index.ids() if passes(self._index.file(id), id.partition("/")[2]))

    def _tags(self, file: CaptionFile) -> frozenset[str]:
        return tags_of(file.text, self.separator)


def _sources(plan: DatasetPlan) -> list[Source]:
    """The plan's folders, each once; pictures of metadata files with the captions told there."""
    sources: dict[object, Source] = {}
    for dataset in plan.datasets:
        for subset in dataset.subsets:
            folder = subset.image_dir.resolve()
            if subset.metadata_file is None:
                sources.setdefault(folder, Source(folder, subset.caption_extension, inside=False))
            elif subset.metadata_file not in sources:
                told = {p.path: p.caption for p in _planned(plan) if p.subset == subset}
                sources[subset.metadata_file] = Source(folder, None, False, told, subset.metadata_file.name)
    return list(sources.values())


def _planned(plan: DatasetPlan) -> Iterable[Picture]:
    parts = (plan, plan.validation) if plan.validation else (plan,)
    return (picture for part in parts for dataset in part.datasets for picture in dataset.pictures)


def journal_path(folders: Sequence[Path]) -> Path:
    """The record of edits that belongs to some folders."""
    named = "\n".join(sorted(str(folder.resolve()) for folder in folders))
    mark = hashlib.blake2b(named.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    words = re.sub(r"\W+", "-", folders[0].name).strip("-")[:40] if folders else ""
    return paths.home() / "edits" / f"{words or 'captions'}-{mark}.jsonl"


def tags_of(text: str, separator: str) -> frozenset[str]:
    """The tags of all lines, each once."""
    return frozenset(tag for line in text.splitlines() for tag in operations.split_tags(line, separator))


class _Test:
    """A filter made ready."""

    def __init__(self, wanted: Filter, separator: str) -> None:
        self.expression = wanted.expression()
        self.tags = frozenset(tag.strip().casefold() for tag in wanted.tags)
        self.without = frozenset(tag.strip().casefold() for tag in wanted.without)
        self.text, self.name = wanted.text.casefold(), wanted.name.casefold()
        self.missing, self.separator = wanted.missing, separator

    def __call__(self, file: CaptionFile, name: str) -> bool:
        if self.missing is not None and (not file.text.strip()) != self.missing:
            return False
        if self.name not in name.casefold() or self.text not in file.folded:
            return False
        if self.expression and not self.expression.search(file.text):
            return False
        if not self.tags and not self.without:
            return True
        found = tags_of(file.folded, self.separator.casefold())
        return self.tags <= found and not self.without & found


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _put(change: FileChange) -> bool | OSError:
    """Write one file, or take away the one that an edit made. False when it changed elsewhere."""
    try:
        now = read_bytes(change.path)
        if now not in (change.before, change.after):
            return False
        if change.after is None:
            change.path.unlink(missing_ok=True)
        elif now != change.after:
            replace_bytes(change.path, change.after)
    except OSError as error:
        return error
    return True
