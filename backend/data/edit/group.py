"""Copies of pictures in groups of one shape each, so that every batch can be full.

Pictures are sorted by width / height and taken in groups of the batch size; those of a group are cut
(or padded) to one shape and so fall into one bucket.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.data import caption_files, images
from backend.data.edit.files import copy_new, new_bytes, reason, stop_if_full, target_folder
from backend.data.edit.resize import encode
from backend.data.edit.types import Report
from backend.data.headers import EXTENSIONS, HeaderError, read_header
from backend.data.report import count
from backend.errors import InputError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GroupRules:
    """What :func:`group_images` makes."""

    group_size: int = 4
    """Pictures a group; the batch size. The last group may be smaller."""
    include_subfolders: bool = False
    do_not_copy_other_files: bool = False
    """Leave out captions and other files of a picture's name."""
    pad: bool = False
    """Add a white border instead of cutting."""
    caption: bool = False
    """Write a caption for pictures without one: the name of the folder they come from."""
    caption_ext: str = ".txt"

    def __post_init__(self) -> None:
        if not 1 <= self.group_size <= 64:
            raise InputError(f"group_size: {self.group_size} is outside 1 to 64", key="group_size")
        if not self.caption_ext.startswith("."):
            raise InputError(
                f"caption_ext: {self.caption_ext!r} does not begin with a dot", key="caption_ext"
            )


@dataclass(frozen=True)
class _Item:
    path: Path
    size: tuple[int, int]

    @property
    def aspect(self) -> float:
        return self.size[0] / self.size[1]


def group_images(
    source: Path, target: Path, rules: GroupRules | None = None, progress: Progress | None = None
) -> Report:
    """Fill ``target`` with PNG copies 'group-<n>-image-<m>-<name>', each group of one shape.

    The shape of a group is the middle one of its pictures (geometric mean of width / height). Nothing
    is enlarged or shrunk. Files that exist are never replaced.

    Raises:
        InputError: ``source`` has no picture, or ``target`` is one of its folders or holds groups.
        RunFault: the disk is full; what was written is whole.
    """
    rules = rules or GroupRules()
    started = time.monotonic()
    folder = source.expanduser().resolve()
    failed: list[tuple[str, str]] = []
    items = sorted(
        _items(folder, rules.include_subfolders, failed), key=lambda item: (item.aspect, item.path)
    )
    if not items:
        raise InputError(f"No images in {folder}", next="choose the folder that holds the pictures")
    root = target_folder(target, folder, *{item.path.parent for item in items})
    groups = [items[i : i + rules.group_size] for i in range(0, len(items), rules.group_size)]
    if any(root.glob("group-*-image-*")):
        raise InputError(f"{root} holds groups already", next="choose an empty folder")
    written: list[Path] = []
    done = 0
    for number, group in enumerate(groups, 1):
        aspect = math.exp(sum(math.log(item.aspect) for item in group) / len(group))
        for place, item in enumerate(group, 1):
            stem = f"group-{number}-image-{place}-{item.path.stem}"
            wrong = _make(item, root, stem, aspect, rules, written)
            failed += [(item.path.name, wrong)] if wrong else []
            done += not wrong
            if progress is not None:
                progress(done, len(items))
    notes = [f"{count(len(groups), 'group')} of up to {count(rules.group_size, 'picture')}"]
    if len(items) % rules.group_size:
        notes.append(f"the last group has {count(len(groups[-1]), 'picture')}")
    return Report(done, tuple(written), tuple(failed), tuple(notes), time.monotonic() - started)


def group_size_of(size: tuple[int, int], aspect: float, pad: bool) -> tuple[int, int]:
    """``size`` cut, or extended, to width / height ``aspect``."""
    width, height = size
    by_height = (max(1, round(height * aspect)), height)
    by_width = (width, max(1, round(width / aspect)))
    wider = width / height > aspect
    return (by_width if wider else by_height) if pad else (by_height if wider else by_width)


def _items(folder: Path, deep: bool, failed: list[tuple[str, str]]) -> Iterator[_Item]:
    for path in _pictures(folder, deep):
        try:
            yield _Item(path, read_header(path).size)
        except HeaderError as error:
            failed.append((path.name, str(error)))
        except OSError as error:
            failed.append((path.name, f"cannot be read ({(error.strerror or str(error)).lower()})"))


def _pictures(folder: Path, deep: bool) -> Iterable[Path]:
    if not folder.is_dir():
        raise InputError(f"Folder not found: {folder}", next="choose the folder that holds the pictures")
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep else []
        yield from (
            Path(parent) / name
            for name in sorted(names)
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")
        )


def _make(item: _Item, root: Path, stem: str, aspect: float, rules: GroupRules, written: list[Path]) -> str:
    """Copy one picture with what belongs to it; gives what went wrong."""
    try:
        pixels = images.decode(item.path.read_bytes())
    except images.DecodeError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"
    shaped = _shaped(pixels, group_size_of(item.size, aspect, rules.pad))
    try:
        new_bytes(root / f"{stem}.png", encode(shaped, png=True), flush=False)
        written.append(root / f"{stem}.png")
        others = [] if rules.do_not_copy_other_files else _companions(item.path)
        for other in others:
            copy_new(other, root / f"{stem}{other.suffix}")
            written.append(root / f"{stem}{other.suffix}")
        caption = root / f"{stem}{rules.caption_ext}"
        if rules.caption and not _captioned(item.path, rules) and not caption.exists():
            new_bytes(
                caption, item.path.parent.name.partition("_")[2].encode() or item.path.parent.name.encode()
            )
            written.append(caption)
    except OSError as error:
        stop_if_full(error, root / stem)
        return reason(error)
    return ""


def _captioned(path: Path, rules: GroupRules) -> bool:
    if rules.do_not_copy_other_files:
        return False
    names = {other.name for other in _companions(path)}
    return caption_files.find(path.stem, rules.caption_ext, (0, 0), names) is not None


def _companions(path: Path) -> Sequence[Path]:
    """Files of the picture's name with an ending of no picture."""
    names = (other for other in path.parent.iterdir() if other.stem == path.stem and other.is_file())
    return sorted(other for other in names if other.suffix.lower() not in EXTENSIONS)


def _shaped(pixels: images.Array, size: tuple[int, int]) -> images.Array:
    """Cut from, or set into, the centre; borders are white."""
    (width, height), (have_height, have_width) = size, pixels.shape[:2]
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    across, down = min(width, have_width), min(height, have_height)
    from_left, from_top = (have_width - across) // 2, (have_height - down) // 2
    left, top = (width - across) // 2, (height - down) // 2
    page[top : top + down, left : left + across] = pixels[
        from_top : from_top + down, from_left : from_left + across
    ]
    return page
