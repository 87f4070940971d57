"""Finds and measures the pictures of a folder, and pairs them with captions and masks.

Nothing is decoded unless asked, and nothing is ever written beside the pictures.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from backend.data import caption_files, headers
from backend.data.facts import FileFacts, Known
from backend.data.headers import ENDINGS, EXTENSIONS, UNSUPPORTED, Header, HeaderError
from backend.data.index import FolderIndex, Stamp, is_folder, stamp_of

if TYPE_CHECKING:
    from backend.data.images import Checked

MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Found:
    """One picture file, measured."""

    path: Path
    header: Header
    caption_path: Path | None = None
    key: str = ""
    """What a metadata file calls it; '' in a folder."""
    caption: str | None = None
    """Its text in a metadata file."""

    @property
    def name(self) -> str:
        return self.key or self.path.name

    @property
    def misnamed(self) -> bool:
        """Its ending says another kind than its bytes."""
        return self.path.suffix.lower() not in ENDINGS[self.header.kind]


@dataclass
class Scan:
    """What a folder holds."""

    folder: Path
    pictures: list[Found] = field(default_factory=list[Found])
    """Readable ones, sorted by name."""
    broken: dict[str, str] = field(default_factory=dict[str, str])
    """File name -> what is wrong, completing 'name ...'."""
    unsupported: list[str] = field(default_factory=list[str])
    folders: list[str] = field(default_factory=list[str])
    unread: list[str] = field(default_factory=list[str])
    """Caption files of another ending beside the one that is read."""
    shared_stems: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """Pictures that share one caption file because they differ by their ending only."""
    twins: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """Names that look alike and are written with different characters (composed and decomposed)."""
    index: FolderIndex | None = None


def scan_folder(
    folder: Path,
    caption_extension: str = ".caption",
    progress: Callable[[int], None] | None = None,
    index: FolderIndex | None = None,
) -> Scan:
    """Pictures of ``folder`` itself (not of folders inside), with sizes and caption files.

    ``progress`` is told the number of pictures measured so far. With an ``index``, files that have
    not changed since are not opened. Raises OSError when the folder cannot be listed.
    """
    scan = Scan(folder, index=index)
    names: set[str] = set()
    images: list[tuple[str, Stamp | None]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (called for every file)
            if ending in EXTENSIONS and not is_folder(entry):
                images.append((entry.name, stamp_of(entry) if index else None))
            elif ending in UNSUPPORTED and not is_folder(entry):
                scan.unsupported.append(entry.name)
            elif "." not in entry.name and is_folder(entry):
                scan.folders.append(entry.name)
            else:
                names.add(entry.name)
                if index:
                    index.stamps[entry.name] = stamp_of(entry)
    images.sort()
    scan.unsupported.sort()
    for number, (name, stamp) in enumerate(images, 1):
        header = measure(scan, name, scan.folder / name, stamp)
        if header is not None:
            _add(scan, name, header, caption_extension, names)
        if progress is not None and number % 100 == 0:
            progress(number)
    scan.shared_stems = _shared_stems(scan.pictures)
    scan.twins = _twins(name for name, _ in images)
    return scan


def measure(scan: Scan, name: str, path: Path, stamp: Stamp | None) -> Header | None:
    """A picture's header, or None when it is broken, which ``scan`` then says."""
    try:
        header = scan.index.header(path, stamp) if scan.index else headers.read_header(path)
    except HeaderError as error:
        scan.broken[name] = str(error)
        return None
    except OSError as error:
        scan.broken[name] = f"cannot be read ({(error.strerror or str(error)).lower()})"
        return None
    pixels = header.size[0] * header.size[1]
    if pixels > MAX_PIXELS:
        scan.broken[name] = f"has {pixels / 1e6:.0f} megapixels; limit {MAX_PIXELS / 1e6:.0f}"
        return None
    return header


def _add(scan: Scan, name: str, header: Header, caption_extension: str, names: set[str]) -> None:
    path = scan.folder / name
    stem = name[: name.rindex(".")]
    caption = caption_files.find(stem, caption_extension, header.size, names)
    if other := caption_files.beside(stem, caption or "", names):
        scan.unread.append(other)
    scan.pictures.append(Found(path, header, scan.folder / caption if caption else None))


def _shared_stems(pictures: Iterable[Found]) -> list[tuple[str, ...]]:
    by_stem: dict[str, list[str]] = {}
    for picture in pictures:
        by_stem.setdefault(picture.path.stem, []).append(picture.name)
    return [tuple(names) for names in by_stem.values() if len(names) > 1]


def _twins(names: Iterable[str]) -> list[tuple[str, ...]]:
    alike: dict[str, list[str]] = {}
    for name in names:
        if not name.isascii():
            alike.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return [tuple(same) for same in alike.values() if len(same) > 1]


def verify(
    paths: Iterable[Path],
    facts: FileFacts,
    progress: Callable[[int], None] | None = None,
    masks: Collection[Path] = (),
) -> Iterator[tuple[Path, str]]:
    """Decode files whole and give (path, what is wrong) for those that fail.

    Files that decoded before and have not changed since are passed over. ``masks`` are those of
    the files that are masks: one that is black all over fails too.
    """
    unknown = [path for path in paths if not _decoded_before(path, facts, path in masks)]
    if not unknown:
        return
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        checked = zip(unknown, pool.map(_check_with(facts, masks), unknown), strict=True)
        for number, (path, wrong) in enumerate(checked, 1):
            if wrong:
                yield path, wrong
            if progress is not None and number % 100 == 0:
                progress(number)
    facts.save()


def _decoded_before(path: Path, facts: FileFacts, mask: bool) -> bool:
    try:
        known = facts.decoded_as(path)
    except OSError:
        return False
    return known == "m" if mask else known not in (None, "m")


def _known(found: Checked) -> Known:
    if found.sound_profile:
        return "t" if found.seen_through else "s"
    return "b" if found.seen_through else "p"


def _check_with(facts: FileFacts, masks: Collection[Path]) -> Callable[[Path], str]:
    """A function that decodes one file and gives what is wrong with it, or ''."""
    from backend.data import images

    def check(path: Path) -> str:
        try:
            data = path.read_bytes()
            if path in masks:
                images.check_mask(data)
                facts.set_decoded(path, data, "m")
            else:
                facts.set_decoded(path, data, _known(images.check(data)))
        except images.DecodeError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({(error.strerror or str(error)).lower()})"
        return ""

    return check
