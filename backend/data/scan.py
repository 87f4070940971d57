"""Finds and measures the pictures of a folder, and pairs them with captions and masks.

Nothing is decoded unless asked, and nothing is ever written beside the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from backend.data import caption_files
from backend.data.facts import FileFacts
from backend.data.headers import EXTENSIONS, UNSUPPORTED, Header, HeaderError, read_header

MAX_PIXELS = 200_000_000

_KIND_ENDINGS = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",), "bmp": (".bmp",)}


@dataclass(frozen=True)
class Found:
    """One picture file, measured."""

    path: Path
    header: Header
    caption_path: Path | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def misnamed(self) -> bool:
        """Its ending says another kind than its bytes."""
        return self.path.suffix.lower() not in _KIND_ENDINGS[self.header.kind]


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
    shared_stems: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """Pictures that share one caption file because they differ by their ending only."""


def scan_folder(
    folder: Path, caption_extension: str = ".caption", progress: Callable[[int], None] | None = None
) -> Scan:
    """Pictures of ``folder`` itself (not of folders inside), with sizes and caption files.

    ``progress`` is told the number of pictures measured so far. Raises OSError when the folder
    cannot be listed.
    """
    scan = Scan(folder)
    names: set[str] = set()
    images: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (called for every file)
            if ending in EXTENSIONS and not entry.is_dir():
                images.append(entry.name)
            elif ending in UNSUPPORTED and not entry.is_dir():
                scan.unsupported.append(entry.name)
            elif "." not in entry.name and entry.is_dir():
                scan.folders.append(entry.name)
            else:
                names.add(entry.name)
    images.sort()
    scan.unsupported.sort()
    for number, name in enumerate(images, 1):
        _measure(scan, name, caption_extension, names)
        if progress is not None and number % 100 == 0:
            progress(number)
    scan.shared_stems = _shared_stems(scan.pictures)
    return scan


def _measure(scan: Scan, name: str, caption_extension: str, names: set[str]) -> None:
    path = scan.folder / name
    try:
        header = read_header(path)
    except HeaderError as error:
        scan.broken[name] = str(error)
        return
    except OSError as error:
        scan.broken[name] = f"cannot be read ({(error.strerror or str(error)).lower()})"
        return
    pixels = header.size[0] * header.size[1]
    if pixels > MAX_PIXELS:
        scan.broken[name] = f"has {pixels / 1e6:.0f} megapixels; limit {MAX_PIXELS / 1e6:.0f}"
        return
    stem = name[: name.rindex(".")]
    caption = caption_files.find(stem, caption_extension, header.size, names)
    scan.pictures.append(Found(path, header, scan.folder / caption if caption else None))


def _shared_stems(pictures: Iterable[Found]) -> list[tuple[str, ...]]:
    by_stem: dict[str, list[str]] = {}
    for picture in pictures:
        by_stem.setdefault(picture.path.stem, []).append(picture.name)
    return [tuple(names) for names in by_stem.values() if len(names) > 1]


def verify(
    paths: Iterable[Path], facts: FileFacts, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[Path, str]]:
    """Decode files whole and give (path, what is wrong) for those that fail.

    Files that decoded before and have not changed since are passed over.
    """
    todo = [path for path in paths if not _decoded_before(path, facts)]
    if not todo:
        return
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for number, (path, wrong) in enumerate(zip(todo, pool.map(_check_with(facts), todo), strict=True), 1):
            if wrong:
                yield path, wrong
            if progress is not None and number % 100 == 0:
                progress(number)
    facts.save()


def _decoded_before(path: Path, facts: FileFacts) -> bool:
    try:
        return facts.decodes(path)
    except OSError:
        return False


def _check_with(facts: FileFacts) -> Callable[[Path], str]:
    """A function that decodes one file and gives what is wrong with it, or ''."""
    from backend.data import images

    def check(path: Path) -> str:
        try:
            data = path.read_bytes()
            images.check(data)
            facts.set_decoded(path, data)
        except images.DecodeError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({(error.strerror or str(error)).lower()})"
        return ""

    return check
