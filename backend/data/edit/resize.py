"""Smaller copies of pictures beside copies of the originals, for training at several sizes.

A picture 'a.png' becomes 'a.png' itself and 'a+512x512.jpg': scaled to the area of 512x512, never
enlarged, and cut from the centre so that both sides are divisible.
"""

from __future__ import annotations

import io
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from backend.data import images
from backend.data.edit.files import copy_new, new_bytes, reason, stop_if_full, target_folder
from backend.data.edit.types import Report
from backend.data.headers import EXTENSIONS
from backend.data.report import count
from backend.errors import InputError

Size = tuple[int, int]
Progress = Callable[[int, int], None]

INTERPOLATIONS = ("area", "cubic", "lanczos4", "nearest", "linear", "box")
_OURS = {"lanczos4": "lanczos"}
_JPEG_QUALITY = 100


@dataclass(frozen=True)
class ResizeRules:
    """What :func:`resize_folder` makes."""

    max_resolution: tuple[Size, ...] = ((512, 512), (384, 384), (256, 256), (128, 128))
    """A copy is made for the area of each."""
    divisible_by: int = 1
    interpolation: str = "area"
    """One of :data:`INTERPOLATIONS`; lanczos4 is Lanczos with its support widened as the picture shrinks."""
    save_as_png: bool = False
    """PNG instead of JPEG at quality 100."""
    copy_associated_files: bool = False
    """Captions and other files of a picture's name are copied for each of its copies."""

    def __post_init__(self) -> None:
        if self.divisible_by < 1:
            raise InputError(f"divisible_by: {self.divisible_by} is below 1", key="divisible_by")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation: {self.interpolation!r} is none of {', '.join(INTERPOLATIONS)}",
                key="interpolation",
            )
        for width, height in self.max_resolution:
            if min(width, height) < max(8, self.divisible_by):
                raise InputError(f"max_resolution: {width}x{height} is too small", key="max_resolution")


def read_resolutions(text: str) -> tuple[Size, ...]:
    """((512, 512), (384, 384)) of '512x512,384x384'. Raises InputError."""
    sizes: list[Size] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)\s*[xX]\s*(\d+)", part)
        if not match:
            raise InputError(
                f"max_resolution: {part!r} is not a size",
                next="write sizes such as 512x512,384x384",
                key="max_resolution",
            )
        sizes.append((int(match[1]), int(match[2])))
    if not sizes:
        raise InputError(
            "max_resolution names no size", next="write sizes such as 512x512", key="max_resolution"
        )
    return tuple(dict.fromkeys(sizes))


def scaled_size(size: Size, area: int) -> Size:
    """``size`` shrunk, shape kept, to at most ``area`` pixels; as it is when it has no more."""
    if size[0] * size[1] <= area:
        return size
    scale = math.sqrt(area / (size[0] * size[1]))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def resize_folder(
    source: Path, target: Path, rules: ResizeRules | None = None, progress: Progress | None = None
) -> Report:
    """Fill ``target`` with the files of ``source`` and smaller copies of its pictures.

    Every file of ``source`` (not of folders inside) is copied as it is. Copies are upright sRGB,
    transparency on white. A file that is in ``target`` already is left as it is and counted.

    Raises:
        InputError: ``source`` cannot be read, holds no picture, or is ``target``.
        RunFault: the disk is full; what was written is whole.
    """
    rules = rules or ResizeRules()
    started = time.monotonic()
    folder = source.expanduser().resolve()
    names = list_files(folder)
    pictures = [name for name in names if _ending(name) in EXTENSIONS]
    if not pictures:
        raise InputError(f"No images in {folder}", next="choose the folder that holds the pictures")
    root = target_folder(target, folder)
    work = _Resize(folder, root, rules, names)
    failed = [
        (name, wrong)
        for name in sorted(names - set(pictures))
        if (wrong := work.copy(folder / name, root / name))
    ]
    for done, (name, wrong) in enumerate(_parallel(pictures, work.picture), 1):
        failed += [(name, wrong)] if wrong else []
        if progress is not None:
            progress(done, len(pictures))
    return Report(
        len(pictures) - len({name for name, _ in failed} & set(pictures)),
        tuple(sorted(work.written)),
        tuple(failed),
        tuple(work.notes()),
        time.monotonic() - started,
    )


def list_files(folder: Path) -> set[str]:
    """Names of the files directly in a folder, hidden ones left out. Raises InputError."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        raise InputError(
            f"Folder not found: {folder}", next="choose the folder that holds the pictures"
        ) from None
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({(error.strerror or '').lower()})") from error
    return {name for name in names if os.path.isfile(folder / name)}  # noqa: PTH113 (False for dead links)


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (called for every file)


def _parallel(names: Iterable[str], work: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """(name, what ``work`` says of it), several at once, in order."""
    ordered = sorted(names)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from zip(ordered, pool.map(work, ordered), strict=True)


class _Resize:
    """One run over a folder. Its methods are called from several threads, each for its own files."""

    def __init__(self, folder: Path, root: Path, rules: ResizeRules, names: set[str]) -> None:
        self.folder, self.root, self.rules = folder, root, rules
        self.written: list[Path] = []
        self.present: list[Path] = []
        self.not_enlarged: list[str] = []
        self.companions: dict[str, list[str]] = {}
        for name in sorted(names):
            if _ending(name) not in EXTENSIONS:
                self.companions.setdefault(Path(name).stem, []).append(name)

    def picture(self, name: str) -> str:
        """Make everything of one picture; gives what is wrong with it, '' when it went well."""
        path = self.folder / name
        try:
            data = path.read_bytes()
            pixels = images.decode(data)
        except images.DecodeError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({(error.strerror or str(error)).lower()})"
        wrong = [self.copy(path, self.root / name)]
        wrong += [self._make(path, pixels, resolution) for resolution in self.rules.max_resolution]
        return next(filter(None, wrong), "")

    def copy(self, source: Path, target: Path) -> str:
        """Copy one file to a free name; gives what went wrong."""
        try:
            copy_new(source, target)
            self.written.append(target)
        except FileExistsError:
            self.present.append(target)
        except OSError as error:
            stop_if_full(error, target)
            return reason(error)
        return ""

    def notes(self) -> list[str]:
        """What is worth telling at the end."""
        notes: list[str] = []
        if self.present:
            notes.append(f"{count(len(self.present), 'file')} were there already and left as they are")
        if self.not_enlarged:
            notes.append(
                f"{count(len(self.not_enlarged), 'copy', 'copies')} have the picture's own size, "
                "since nothing is enlarged"
            )
        return notes

    def _make(self, path: Path, pixels: images.Array, resolution: Size) -> str:
        """One smaller copy and what goes with it; gives what went wrong."""
        ending = "png" if self.rules.save_as_png else "jpg"
        stem = f"{path.stem}+{resolution[0]}x{resolution[1]}"
        target = self.root / f"{stem}.{ending}"
        wrong: list[str] = []
        if target.exists():
            self.present.append(target)
        else:
            wrong.append(self._write(target, self._scaled(path, pixels, resolution)))
        if self.rules.copy_associated_files:
            others = self.companions.get(path.stem, ())
            wrong += [self.copy(self.folder / n, self.root / f"{stem}{Path(n).suffix}") for n in others]
        return next(filter(None, wrong), "")

    def _scaled(self, path: Path, pixels: images.Array, resolution: Size) -> images.Array:
        height, width = pixels.shape[:2]
        size = scaled_size((width, height), resolution[0] * resolution[1])
        if size == (width, height):
            self.not_enlarged.append(path.name)
        resized = images.resize(pixels, size, _OURS.get(self.rules.interpolation, self.rules.interpolation))
        return centre_cut(resized, self.rules.divisible_by)

    def _write(self, target: Path, pixels: images.Array) -> str:
        try:
            new_bytes(target, encode(pixels, png=self.rules.save_as_png), flush=False)
            self.written.append(target)
        except OSError as error:
            stop_if_full(error, target)
            return reason(error)
        return ""


def centre_cut(pixels: images.Array, divisor: int) -> images.Array:
    """The middle of a picture whose sides are multiples of ``divisor`` (a side below it stays whole)."""
    height, width = pixels.shape[:2]
    new_height, new_width = (side - side % divisor or side for side in (height, width))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return pixels[top : top + new_height, left : left + new_width]


def encode(pixels: images.Array, *, png: bool) -> bytes:
    """A picture file's bytes: PNG, or JPEG at quality 100 with full colour resolution."""
    from PIL import Image

    data = io.BytesIO()
    image = Image.fromarray(pixels)
    if png:
        image.save(data, "PNG")
    else:
        image.save(data, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return data.getvalue()
