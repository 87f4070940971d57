"""Describing whole folders: decode ahead, ask the model, keep the texts, tell how far it is.

One picture that fails never stops the rest, and a run that is stopped keeps what it has made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from backend.annotate import pictures
from backend.annotate.keeping import Keeper, Kept
from backend.annotate.settings import PictureSettings
from backend.data import images
from backend.errors import AtelierError

P = TypeVar("P")
Progress = Callable[[int, int], None]
"""Told how many pictures are done, and how many there are."""
_KEEP_EVERY = 2.0
"""Seconds between two times that texts are brought to the disk."""


class Describer(Protocol, Generic[P]):
    """A model that makes texts of pictures."""

    glue: str
    """What stands between a text and the words put in front of it or after it."""

    def prepare(self, pixels: images.Array) -> P:
        """What the model needs of a picture; called in several threads, ahead of the model."""
        ...

    def describe(self, batch: Sequence[P], paths: Sequence[Path]) -> list[str]:
        """One text a picture. May raise anything."""
        ...


@dataclass
class Outcome:
    """How a run ended."""

    what: str
    """What was written: 'captions', 'tags'."""
    total: int
    """Pictures that were to be described."""
    written: int = 0
    had_text: int = 0
    """Pictures that have text and keep it."""
    failed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(picture's path within the folder, why it has no new text)."""
    empty: list[str] = field(default_factory=list[str])
    """Pictures of which the model said nothing that the rules let pass."""
    notes: list[str] = field(default_factory=list[str])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """Tag -> pictures that got it, the most frequent first; when asked for."""
    seconds: float = 0.0
    stopped: bool = False
    edit: int | None = None
    """Number in the folder's history."""

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return (self.written + len(self.empty)) / self.seconds if self.seconds > 0 else 0.0

    def text(self) -> str:
        """The end of a command line."""
        head = "stopped: " if self.stopped else ""
        wrote = f"wrote {self.what} for {self.written} of {self.total} pictures"
        lines = [f"{head}{wrote}, {self.rate:.1f} pictures/s"]
        if self.had_text:
            kept = f"{self.had_text} had text already and keep it"
            lines.append(f"note: {kept} (--existing replace or append changes that)")
        if self.empty:
            names = ", ".join(self.empty[:5]) + (", ..." if len(self.empty) > 5 else "")
            lines.append(f"note: {len(self.empty)} got none, as nothing passed the rules: {names}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"  {count:6d}  {tag}" for tag, count in self.counts.items()]
        return "\n".join([*lines, *(f"failed: {name} {why}" for name, why in self.failed)])

    def as_dict(self) -> dict[str, Any]:
        return {
            "what": self.what, "total": self.total, "written": self.written, "had_text": self.had_text,
            "failed": self.failed, "empty": self.empty, "notes": self.notes, "counts": self.counts,
            "seconds": self.seconds, "rate": self.rate, "stopped": self.stopped, "edit": self.edit,
            "text": self.text(),
        }  # fmt: skip


def describe_folder(
    settings: PictureSettings,
    paths: Sequence[Path],
    describer: Describer[Any],
    keeper: Keeper,
    what: str,
    progress: Progress,
    on_text: Callable[[Path, str], None] = lambda path, text: None,
) -> Outcome:
    """Describe the pictures that are to get a text, and keep the texts.

    An interrupt (Ctrl-C, or a job that is asked to end) ends it at once; the texts made are kept, and the
    outcome says that it was stopped.

    Raises:
        RunFault: texts cannot be kept at all (see :class:`~backend.annotate.keeping.Keeper`).
    """
    wanted, kept, refused = keeper.wanted(paths)
    outcome = Outcome(what, len(wanted) + len(refused), had_text=len(kept))
    run = _Run(settings, describer, keeper, outcome, on_text, lambda: progress(run.done, outcome.total))
    started = time.monotonic()
    run.failed(refused)
    try:
        run.go(wanted)
    except KeyboardInterrupt:
        outcome.stopped = True
    finally:
        run.keep()
        outcome.notes += keeper.close()
        outcome.edit, outcome.seconds = keeper.edit, time.monotonic() - started
    return outcome


class _Run:
    """One run over a folder."""

    def __init__(
        self,
        settings: PictureSettings,
        describer: Describer[Any],
        keeper: Keeper,
        outcome: Outcome,
        on_text: Callable[[Path, str], None],
        tell: Callable[[], None],
    ) -> None:
        self._settings, self._describer, self._keeper = settings, describer, keeper
        self._outcome, self._on_text, self._tell = outcome, on_text, tell
        self._folder = Path(settings.train_data_dir).expanduser().resolve()
        self._waiting: list[tuple[Path, str]] = []
        self._kept_at = time.monotonic()

    @property
    def done(self) -> int:
        outcome = self._outcome
        return outcome.written + len(outcome.failed) + len(outcome.empty) + len(self._waiting)

    def go(self, wanted: Sequence[Path]) -> None:
        """Describe batch after batch."""
        for batch in self._batches(wanted):
            self._take(batch)
            if time.monotonic() - self._kept_at > _KEEP_EVERY:
                self.keep()
            self._tell()

    def failed(self, kept: Sequence[Kept]) -> None:
        """Note pictures that get no text."""
        self._outcome.failed += [(self._name(path), why) for path, why in kept]

    def keep(self) -> None:
        """Bring the texts that are waiting to the disk."""
        if self._waiting:
            texts, self._waiting = self._waiting, []
            lost = self._keeper.put(texts)
            self._outcome.written += len(texts) - len(lost)
            self.failed(lost)
        self._kept_at = time.monotonic()

    def _batches(self, wanted: Sequence[Path]) -> Iterator[list[tuple[Path, Any]]]:
        size = self._settings.batch_size
        workers = pictures.threads(self._settings.max_data_loader_n_workers)
        batch: list[tuple[Path, Any]] = []
        for path, ready in pictures.prepared(
            wanted, self._describer.prepare, workers, max(2 * size, workers)
        ):
            if isinstance(ready, images.DecodeError):
                self.failed([(path, str(ready))])
                continue
            batch.append((path, ready))
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _take(self, batch: list[tuple[Path, Any]]) -> None:
        """Ask the model; when a batch fails, each of its pictures by itself."""
        try:
            texts = self._describer.describe([ready for _, ready in batch], [path for path, _ in batch])
        except AtelierError:
            raise
        except Exception as error:  # models raise many kinds, memory among them
            if len(batch) > 1:
                for one in batch:
                    self._take([one])
                return
            self.failed([(batch[0][0], f"could not be described ({_short(error)})")])
            return
        for (path, _), text in zip(batch, texts, strict=True):
            self._finish(path, text)

    def _finish(self, path: Path, text: str) -> None:
        whole = complete(text, self._settings, self._describer.glue)
        self._on_text(path, whole)
        if whole:
            self._waiting.append((path, whole))
        else:
            self._outcome.empty.append(self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def complete(text: str, settings: PictureSettings, glue: str) -> str:
    """A model's text with the words that are put in front of it and after it; '' when it said nothing."""
    parts = (settings.caption_prefix.strip(), text.strip(), settings.caption_postfix.strip())
    return glue.join(filter(None, parts)) if text.strip() else ""


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
