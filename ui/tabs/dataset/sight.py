"""Pictures for the page, as data addresses: nothing of a dataset is served by a path of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from backend.data.edit import thumbnail
from backend.data.types import Picture
from backend.errors import AtelierError

SMALL = 256
"""Longest side of a thumbnail in the grid, in pixels."""
LARGE = 1280
"""Longest side of a picture shown large; a trained one is shown whole."""
_THREADS = 4


def address(path: Path) -> str:
    """A picture file of ours as a ``data:`` address."""
    kind = "png" if path.suffix == ".png" else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def unmasked(picture: Picture) -> Picture:
    """The picture without the veil of its mask."""
    return replace(picture, mask_path=None, subset=replace(picture.subset, alpha_mask=False))


def seen(picture: Picture, side: int, masked: bool, as_trained: bool = True) -> str:
    """A picture as a page shows it, '' when it cannot be shown."""
    try:
        shown = picture if masked else unmasked(picture)
        return address(thumbnail(shown, side, as_trained=as_trained))
    except (AtelierError, OSError):
        return ""


def thumbnails(pictures: Iterable[tuple[str, Picture]], masked: bool) -> dict[str, str]:
    """Small ones of a few pictures by id, several at once."""
    asked = list(pictures)
    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(lambda item: seen(item[1], SMALL, masked), asked)
        return {id: shown for (id, _), shown in zip(asked, made, strict=True)}


def png_address(pixels: object) -> str:
    """A grey picture, (height, width) of bytes, as a ``data:`` address."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=1)  # type: ignore[arg-type]
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
