"""Picture files: PNG with the text that says how it was made, and small previews."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')


def save(
    image: Image.Image, path: Path, parameters: str = "", further: Mapping[str, str] | None = None
) -> Path:
    """Write ``image`` as PNG whole or not at all, and return where it went.

    An existing file is never replaced: ``name-2.png`` and so on is taken instead. ``parameters``
    goes into the PNG text of that name, as other programs write it; ``further`` are texts beside it.
    """
    info = PngInfo()
    texts = {**({"parameters": parameters} if parameters else {}), **(further or {})}
    for key, text in texts.items():
        info.add_text(key, text)
    return _write(image, path, format="PNG", pnginfo=info)


def save_thumbnail(image: Image.Image, path: Path, side: int = 256) -> Path:
    """Write a JPEG whose longer side is at most ``side`` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    return _write(small, path, format="JPEG", quality=85)


def parameters_of(path: Path) -> str:
    """The ``parameters`` text of a PNG file, '' when it has none."""
    with Image.open(path) as image:
        return str(image.info.get("parameters", ""))


def safe_name(name: str) -> str:
    """A file name made of ``name``: one line, no separators, at most 100 characters."""
    return _UNSAFE.sub("_", name).strip(". ")[:100] or "picture"


def _write(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=path.suffix + ".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _save_to(image, file, options)
        Path(temporary).chmod(0o644)
        return _publish(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _save_to(image: Image.Image, file: IO[bytes], options: dict[str, Any]) -> None:
    image.save(file, **options)
    file.flush()
    os.fsync(file.fileno())


def _publish(temporary: Path, path: Path) -> Path:
    """Give the finished file its name, or the next free one."""
    number, target = 1, path
    while True:
        try:
            target.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            target = path.with_stem(f"{path.stem}-{number}")
            continue
        return temporary.replace(target)
