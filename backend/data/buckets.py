"""Aspect-ratio buckets: which size a picture is trained at, and what is cut off.

The choice follows NovelAI's bucketing as sd-scripts does it, so that the same settings give the
same sizes. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from backend.data.types import Geometry

Size = tuple[int, int]


@dataclass(frozen=True)
class BucketRules:
    """What decides the buckets of one dataset."""

    resolution: Size
    enable_bucket: bool = False
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False


def longest_bucket(resolution: Size, min_bucket_reso: int) -> int:
    """Longest side a bucket of this area can have beside a short side of ``min_bucket_reso``."""
    return max(*resolution, resolution[0] * resolution[1] // max(1, min_bucket_reso))


@lru_cache(maxsize=64)
def predefined(resolution: Size, min_reso: int, max_reso: int, steps: int) -> tuple[Size, ...]:
    """All buckets of at most the training area, sorted.

    ``min_reso`` is rounded down and ``max_reso`` up to a multiple of ``steps``.
    """
    low, high = min_reso // steps * steps, -(-max_reso // steps) * steps
    low = max(low, steps)
    area = resolution[0] * resolution[1]
    side = int(math.sqrt(area)) // steps * steps
    sizes = {(side, side)} if side else set[Size]()
    for width in range(low, high + 1, steps):
        height = min(high, area // width // steps * steps)
        if height >= low:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def choose(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket of the same size, else the one with the nearest width / height (the first of equals)."""
    if size in buckets:
        return size
    ratio = size[0] / size[1]
    return min(buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - ratio))


def cover(size: Size, bucket: Size) -> Size:
    """The size to which a picture is scaled, shape kept, so that it just covers the bucket."""
    wider = size[0] / size[1] > bucket[0] / bucket[1]
    scale = bucket[1] / size[1] if wider else bucket[0] / size[0]
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


@lru_cache(maxsize=8192)
def assign(size: Size, rules: BucketRules) -> Geometry:
    """How a picture of ``size`` becomes its bucket; the cut is from the centre."""
    if not rules.enable_bucket:
        return _centred(size, cover(size, rules.resolution), rules.resolution)
    if rules.bucket_no_upscale:
        return _no_upscale(size, rules.resolution, rules.bucket_reso_steps)
    buckets = predefined(
        rules.resolution, rules.min_bucket_reso, rules.max_bucket_reso, rules.bucket_reso_steps
    )
    bucket = choose(size, buckets)
    return _centred(size, cover(size, bucket), bucket)


def enlargement(geometry: Geometry) -> float:
    """Factor by which the picture is enlarged, below 1 when it is shrunk."""
    return max(geometry.resized[i] / geometry.original[i] for i in (0, 1))


def _no_upscale(size: Size, resolution: Size, steps: int) -> Geometry:
    """A bucket of the picture's own: shrunk to the training area when larger, else as it is.

    A side below one step would make a bucket of nothing; such a picture is enlarged to one step.
    """
    resized = _shrunk(size, resolution[0] * resolution[1], steps)
    bucket = (resized[0] // steps * steps, resized[1] // steps * steps)
    if min(bucket) == 0:
        bucket = (max(bucket[0], steps), max(bucket[1], steps))
        resized = cover(size, bucket)
    return _centred(size, resized, bucket)


def _shrunk(size: Size, area: int, steps: int) -> Size:
    """``size`` within ``area``, one side on a multiple of ``steps``: the side that keeps the shape best."""
    width, height = size
    if width * height <= area:
        return size
    ratio = width / height
    ideal_width = math.sqrt(area * ratio)
    ideal_height = area / ideal_width

    by_width = _step(ideal_width, steps)
    beside_width = _step(by_width / ratio, steps)
    by_height = _step(ideal_height, steps)
    beside_height = _step(by_height * ratio, steps)

    width_error = abs(by_width / beside_width - ratio) if beside_width else math.inf
    height_error = abs(beside_height / by_height - ratio) if by_height else math.inf
    if width_error < height_error:
        return by_width, int(by_width / ratio + 0.5)
    return int(by_height * ratio + 0.5), by_height


def _step(value: float, steps: int) -> int:
    return int(value + 0.5) // steps * steps


def _centred(size: Size, resized: Size, bucket: Size) -> Geometry:
    # Rounding can leave a side of an extreme shape one pixel short of its bucket.
    resized = (max(resized[0], bucket[0]), max(resized[1], bucket[1]))
    crop = ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)
    return Geometry(original=size, resized=resized, bucket=bucket, crop=crop)
