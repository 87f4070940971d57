"""Folders named '<repeats>_<words>', filled with copies of pictures and their captions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.data.edit.files import copy_new, reason, stop_if_full, target_folder
from backend.data.edit.types import Report
from backend.data.report import count, listing
from backend.data.scan import Scan, scan_folder
from backend.errors import InputError, RunFault

Progress = Callable[[int, int], None]
"""Told how many pictures are done, and how many there are."""

_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


@dataclass(frozen=True)
class Concept:
    """One folder of pictures and what it becomes."""

    folder: Path
    words: str
    """What stands for the subject, or the class of regularisation pictures: 'sks dog'."""
    repeats: int = 1
    is_reg: bool = False

    @property
    def name(self) -> str:
        """'10_sks dog'. Raises InputError when the words cannot be part of a folder's name."""
        bad = sorted(set(_NOT_IN_NAMES.findall(self.words)))
        if bad or self.words.endswith("."):
            raise InputError(
                f"{self.words!r} cannot be the name of a folder ({' '.join(bad) or 'full stop at the end'})",
                next="choose other words, or have a dataset file written instead of folders",
            )
        return f"{self.repeats}_{self.words.strip()}".rstrip("_ ") if self.words else str(self.repeats)


def scan_pictures(folder: Path, caption_extension: str = ".txt") -> Scan:
    """The pictures of a folder. Raises InputError when it has none or cannot be read."""
    from backend.data.folders import look, nothing_found

    place = folder.expanduser()
    try:
        scan = scan_folder(place.resolve(), caption_extension)
    except FileNotFoundError:
        raise InputError(
            f"Folder not found: {place}", next="choose the folder that holds the pictures"
        ) from None
    except NotADirectoryError:
        raise InputError(f"{place} is a file; a folder of pictures is needed") from None
    except OSError as error:
        raise InputError(
            f"the folder {place} cannot be read ({(error.strerror or str(error)).lower()})"
        ) from error
    if not scan.pictures and not scan.broken:
        raise InputError(nothing_found(scan.folder, look(scan.folder)))
    return scan


def make_dreambooth_folder(
    target: Path, concepts: Sequence[Concept], *, link: bool = False, progress: Progress | None = None
) -> Report:
    """Fill ``target/img`` and, with regularisation pictures, ``target/reg``.

    Each concept becomes a folder '<repeats>_<words>' with copies of its pictures and captions, with
    their times. ``link`` shares the pictures' bytes with the originals where the disk can do that;
    captions are always copies, since they are likely to be edited. Nothing is replaced.

    Raises:
        InputError: nothing to copy, a file that would be made exists, or the target is among the pictures.
        RunFault: the disk is full.
    """
    started = time.monotonic()
    scans = [scan_pictures(concept.folder) for concept in concepts]
    root = target_folder(target, *(scan.folder for scan in scans))
    pairs: list[tuple[Path, Path, bool]] = []
    for concept, scan in zip(concepts, scans, strict=True):
        place = root / ("reg" if concept.is_reg else "img") / concept.name
        pairs += [(source, place / source.name, picture) for source, picture in _files(scan)]
    _check_free([path for _, path, _ in pairs])
    failed = [(name, what) for scan in scans for name, what in scan.broken.items()]
    written = _copy(pairs, link, progress, failed)
    copied = sum(1 for _, path, picture in pairs if picture and path in written)
    notes = [n for scan in scans for n in _notes(scan)]
    return Report(copied, tuple(written), tuple(failed), tuple(notes), time.monotonic() - started)


def _files(scan: Scan) -> list[tuple[Path, bool]]:
    """(file, is a picture): sound pictures and the captions they have, each once."""
    pictures = [(found.path, True) for found in scan.pictures]
    captions = dict.fromkeys(found.caption_path for found in scan.pictures if found.caption_path)
    return [*pictures, *((path, False) for path in captions)]


def _check_free(paths: Sequence[Path]) -> None:
    taken = [path for path in paths if path.exists()]
    if taken:
        raise InputError(
            f"{count(len(taken), 'file')} would be replaced: {listing(path.name for path in taken)}",
            where=str(taken[0].parent),
            why="existing files are never replaced",
            next="choose another folder",
        )


def _copy(
    pairs: Sequence[tuple[Path, Path, bool]],
    link: bool,
    progress: Progress | None,
    failed: list[tuple[str, str]],
) -> dict[Path, None]:
    written: dict[Path, None] = {}
    for number, (source, path, picture) in enumerate(pairs, 1):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            copy_new(source, path, link=link and picture)
            written[path] = None
        except OSError as error:
            stop_if_full(error, path)
            failed.append((source.name, reason(error)))
        if progress is not None:
            progress(number, len(pairs))
    if pairs and not written:
        raise RunFault(f"no file could be copied: {failed[0][0]} {failed[0][1]}")
    return written


def _notes(scan: Scan) -> list[str]:
    others = [
        f"{count(len(names), 'file')} of other kinds not copied: {listing(names)}"
        for names in (scan.unsupported,)
        if names
    ]
    inside = [
        f"{count(len(names), 'folder')} inside {scan.folder.name} not copied: {listing(names)}"
        for names in (scan.folders,)
        if names
    ]
    return [*others, *inside]
