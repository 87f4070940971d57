"""Pictures as they are trained, small, and a plan in figures."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.data import images
from backend.data.edit.files import replace_bytes
from backend.data.facts import default_facts
from backend.data.types import DatasetPlan, Picture
from backend.errors import EnvironmentFault, InputError
from backend.system import paths

_VERSION = 1
"""Counts changes to what thumbnails look like."""
_VEIL = np.array([235, 60, 60], dtype=np.float32)
"""Colour laid over what a mask takes out."""
_VEIL_STRENGTH = 0.6


@dataclass(frozen=True)
class Slice:
    """The pictures of one page of a list."""

    total: int
    offset: int
    pictures: tuple[Picture, ...]


def page(plan: DatasetPlan, offset: int = 0, count: int = 50, bucket: tuple[int, int] | None = None) -> Slice:
    """Pictures ``offset`` to ``offset + count`` of the plan, or of one bucket (width, height) of it."""
    found = [p for d in plan.datasets for p in d.pictures if bucket is None or p.geometry.bucket == bucket]
    start = max(0, offset)
    return Slice(len(found), start, tuple(found[start : start + count]))


def histograms(plan: DatasetPlan) -> Mapping[str, list[dict[str, Any]]]:
    """Counts for three bar charts, as plain data.

    ``buckets``: pictures and pictures times repeats a bucket, by area and shape. ``sizes``: pictures
    by the square root of their area, in steps of 128 px. ``aspects``: pictures by width / height,
    named as the nearest common ratio.
    """
    pictures = [p for d in plan.datasets for p in d.pictures]
    return {"buckets": _buckets(pictures), "sizes": _sizes(pictures), "aspects": _aspects(pictures)}


def _buckets(pictures: Iterable[Picture]) -> list[dict[str, Any]]:
    counts: dict[tuple[int, int], list[int]] = {}
    for picture in pictures:
        entry = counts.setdefault(picture.geometry.bucket, [0, 0])
        entry[0] += 1
        entry[1] += picture.repeats
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] / item[0][1], item[0]))
    return [
        {"label": f"{w}x{h}", "size": [w, h], "count": count, "with_repeats": repeated}
        for (w, h), (count, repeated) in ordered
    ]


_SIZE_STEP = 128


def _sizes(pictures: Iterable[Picture]) -> list[dict[str, Any]]:
    sides = (math.isqrt(p.geometry.original[0] * p.geometry.original[1]) for p in pictures)
    counts = Counter(side // _SIZE_STEP * _SIZE_STEP for side in sides)
    return [
        {"label": f"{side} to {side + _SIZE_STEP - 1} px", "from": side, "to": side + _SIZE_STEP, "count": n}
        for side, n in sorted(counts.items())
    ]


_RATIOS = (
    (1, 3),
    (1, 2),
    (9, 16),
    (2, 3),
    (3, 4),
    (4, 5),
    (1, 1),
    (5, 4),
    (4, 3),
    (3, 2),
    (16, 9),
    (2, 1),
    (3, 1),
)


def _aspects(pictures: Iterable[Picture]) -> list[dict[str, Any]]:
    counts = Counter(_nearest_ratio(p.geometry.original) for p in pictures)
    return [{"label": f"{w}:{h}", "aspect": w / h, "count": counts[w, h]} for w, h in _RATIOS if counts[w, h]]


def _nearest_ratio(size: tuple[int, int]) -> tuple[int, int]:
    aspect = math.log(size[0] / size[1])
    return min(_RATIOS, key=lambda ratio: abs(math.log(ratio[0] / ratio[1]) - aspect))


def thumbnail(
    picture: Picture | Path, side: int = 256, *, as_trained: bool = True, mask: Path | None = None
) -> Path:
    """A WebP file of at most ``side`` px, made once and kept in the cache by content.

    ``as_trained`` shows a planned picture as its bucket: resized and cut as for training. What its mask
    (``mask``, or the planned one, or its alpha channel where that is the mask) takes out is veiled in red.

    Raises:
        InputError: the picture or the mask cannot be read; the text names the file.
        EnvironmentFault: the cache cannot be written to.
    """
    job = _Job(picture, side, as_trained, mask)
    try:
        target = job.target()
        if not target.is_file():
            data = job.draw()
            target.parent.mkdir(parents=True, exist_ok=True)
            _store(target, data)
    except (images.DecodeError, OSError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{job.path.name} {reason}", where=str(job.path)) from error
    return target


def _store(target: Path, data: bytes) -> None:
    try:
        replace_bytes(target, data)
    except OSError as error:
        raise EnvironmentFault(
            f"thumbnails cannot be written ({(error.strerror or str(error)).lower()})",
            where=str(target.parent),
            next="free some space, or choose another place by setting ATELIER_HOME",
        ) from error


class _Job:
    """One thumbnail to be made, and what it depends on."""

    def __init__(self, picture: Picture | Path, side: int, as_trained: bool, mask: Path | None) -> None:
        planned = picture if isinstance(picture, Picture) else None
        self.path = planned.path if planned else Path(str(picture))
        self.side = max(16, min(side, 2048))
        self.geometry = planned.geometry if planned and as_trained else None
        self.interpolation = planned.subset.resize_interpolation if planned else None
        self.mask = mask or (planned.mask_path if planned else None)
        self.alpha = bool(planned and planned.subset.alpha_mask and self.mask is None)

    def target(self) -> Path:
        """The file it is kept in. Raises OSError when the picture or the mask is not there."""
        facts = default_facts()
        how = (
            _VERSION, images.DECODER, facts.content(self.path), self.side, repr(self.geometry),
            self.interpolation, self.alpha, facts.content(self.mask) if self.mask else "",
        )  # fmt: skip
        key = hashlib.blake2b(json.dumps(how).encode(), digest_size=20).hexdigest()
        return paths.cache_root() / "thumbnails" / key[:2] / f"{key}.webp"

    def draw(self) -> bytes:
        """The thumbnail's bytes. Raises DecodeError, OSError."""
        from PIL import Image

        pixels, mask = self._decoded()
        if self.geometry is not None:
            pixels = images.fit(pixels, self.geometry, self.interpolation)
            mask = None if mask is None else images.fit_mask(mask, self.geometry)
        elif mask is not None:
            mask = images.resize(mask, (pixels.shape[1], pixels.shape[0]), "linear")
        size = _within(pixels.shape[1], pixels.shape[0], self.side)
        small = images.resize(pixels, size, "area")
        if mask is not None:
            small = _veil(small, images.resize(mask, size, "area"))
        data = io.BytesIO()
        Image.fromarray(small).save(data, "WEBP", quality=85, method=2)
        return data.getvalue()

    def _decoded(self) -> tuple[images.Array, images.Array | None]:
        data = self.path.read_bytes()
        if self.alpha:
            return images.decode_with_alpha(data)
        pixels = images.decode(data)
        return pixels, images.decode_mask(self.mask.read_bytes()) if self.mask else None


def _within(width: int, height: int, side: int) -> tuple[int, int]:
    """The largest size of the same shape with no side above ``side``; nothing is enlarged."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _veil(pixels: images.Array, mask: images.Array) -> NDArray[np.uint8]:
    """The picture with red over it where the mask is dark."""
    strength = (1.0 - mask.astype(np.float32)[:, :, None] / 255.0) * _VEIL_STRENGTH
    return np.asarray(pixels * (1.0 - strength) + _VEIL * strength + 0.5, dtype=np.uint8)


def thumbnails(
    pictures: Iterable[Picture], side: int = 256, *, as_trained: bool = True, threads: int = 4
) -> list[Path | None]:
    """The thumbnails of one page, several at once; None for a picture that cannot be shown."""

    def one(picture: Picture) -> Path | None:
        try:
            return thumbnail(picture, side, as_trained=as_trained)
        except InputError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(one, pictures))
    default_facts().save()
    return made
