"""Outlines of pictures (Canny 1986), white on black: guide pictures for a ControlNet-LLLite."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backend import wholefile
from backend.data.edit.files import reason, stop_if_full, target_folder
from backend.data.folders import look
from backend.data.headers import HeaderError
from backend.data.images import Array, DecodeError, decode
from backend.data.report import listing
from backend.errors import InputError

Progress = Callable[[int, int], None]
"""Told how many pictures are done, and how many there are."""


@dataclass
class Outlined:
    """What was done to a folder."""

    written: list[Path] = field(default_factory=list[Path])
    kept: list[Path] = field(default_factory=list[Path])
    """Files that were there before and were left as they are."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Picture -> why it has no outlines."""


def outlines(pixels: Array, low: int = 100, high: int = 200) -> Array:
    """(H, W, 3) uint8 -> the same sides, 255 on edges and 0 elsewhere.

    Edges with a gradient above ``high`` count, and those above ``low`` that touch them.
    """
    import cv2
    import numpy as np

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    edges = np.asarray(cv2.Canny(grey, low, high), dtype=np.uint8)
    return np.repeat(edges[..., None], 3, axis=2)


def outline_folder(
    source: Path,
    target: Path,
    *,
    low: int = 100,
    high: int = 200,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outlined:
    """Write the outlines of every picture of a folder as PNG files of the same names.

    Folders named like '10_sks dog' in it are gone through as well, each into one of its name. Files that are
    there stay unless ``overwrite``. A picture that cannot be read is told of and passed over.

    Raises:
        InputError: there is no picture, two pictures would have the same outlines' name, or the pictures'
            own folder is the target.
    """
    pairs = list(_pairs(source, target))
    target_folder(target)
    done = Outlined()
    for index, (picture, path) in enumerate(pairs, start=1):
        if path.exists() and not overwrite:
            done.kept.append(path)
        else:
            try:
                _write(path, outlines(decode(picture.read_bytes()), low, high))
                done.written.append(path)
            except (DecodeError, HeaderError) as error:
                done.failed[picture.name] = str(error)
            except OSError as error:
                stop_if_full(error, path)
                done.failed[picture.name] = reason(error)
        if progress:
            progress(index, len(pairs))
    return done


def _pairs(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """(picture, file of its outlines)."""
    if not source.is_dir():
        raise InputError("the folder of pictures was not found", where=str(source), next="check its name")
    if source.resolve() == target.resolve():
        raise InputError(
            "outlines cannot be written beside their pictures",
            where=str(target),
            why="they have the pictures' own names",
            next="name another folder for them",
        )
    contents = look(source)
    folders = [(source, target)] + [
        (source / name, target / name)
        for name in contents.folders
        if look(source / name).pictures and (source / name).resolve() != target.resolve()
    ]
    count = 0
    for folder, into in folders:
        names = look(folder).pictures
        _require_own_names(folder, names)
        count += len(names)
        yield from ((folder / name, into / f"{Path(name).stem}.png") for name in names)
    if not count:
        raise InputError("there are no pictures in this folder", where=str(source), next="choose another")


def _require_own_names(folder: Path, names: list[str]) -> None:
    stems = [Path(name).stem for name in names]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise InputError(
            f"several pictures have the same name: {listing(twice)}",
            where=str(folder),
            why="guide pictures are found by the name without its ending",
            next="give each picture a name of its own",
        )


def _write(path: Path, pixels: Array) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    with wholefile.replacing(path) as new:
        new.file.write(data.getvalue())
