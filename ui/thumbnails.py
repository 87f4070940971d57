"""Small copies of pictures, so that a page with a hundred samples stays light."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

_SIZE = 256
_FOLDER = ".thumbs"
_making = threading.Lock()
_broken: dict[Path, float] = {}


def thumbnail(picture: Path) -> Path | None:
    """A WebP copy of at most 256 px beside the picture, made when it is missing or older.

    None when the picture cannot be read (it may still be being written).
    """
    small = picture.parent / _FOLDER / f"{picture.name}.webp"
    try:
        changed = picture.stat().st_mtime
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if small.stat().st_mtime >= changed:
            return small
    if _broken.get(picture) == changed:
        return None
    with _making:
        return _make(picture, small, changed)


def _make(picture: Path, small: Path, changed: float) -> Path | None:
    from PIL import Image

    partial = small.with_name(f".{small.name}.{os.getpid()}")
    try:
        small.parent.mkdir(exist_ok=True)
        with Image.open(picture) as image:
            image.thumbnail((_SIZE, _SIZE))
            image.convert("RGB").save(partial, "WEBP", quality=82, method=2)
        partial.replace(small)
        return small
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        _broken[picture] = changed
        partial.unlink(missing_ok=True)
        return None
