"""What differs between the visits of a picture: where it is cut, and its colours.

Everything is drawn by key from (seed, picture, visit), so that a visit is the same wherever and
whenever it is loaded.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from backend import keyed
from backend.data.types import Geometry, Picture

if TYPE_CHECKING:
    from backend.data.images import Array

HUE = 0.04
"""Largest turn of the colour circle, as a share of it."""
SATURATION = BRIGHTNESS = 0.1
GAMMA = 0.05
JITTER = 0.05
"""How far a face may lie from the middle of its cut, as a share of the face."""

_FACE = re.compile(r"_(\d+)_(\d+)_(\d+)_(\d+)$")


def geometry_at(picture: Picture, seed: int, visit: int) -> Geometry:
    """How a picture is resized and cut at a visit."""
    subset, plain = picture.subset, picture.geometry
    if not (subset.random_crop or subset.face_crop_aug_range):
        return plain
    rng = keyed.python(seed, "crop", picture.id, visit)
    face = face_of(picture) if subset.face_crop_aug_range else None
    if face is not None and subset.face_crop_aug_range is not None:
        return _around(face, subset.face_crop_aug_range, plain, subset.random_crop, rng)
    if not subset.random_crop:
        return plain
    left, top = (rng.randint(0, plain.resized[i] - plain.bucket[i]) for i in (0, 1))
    return Geometry(plain.original, plain.resized, plain.bucket, (left, top))


def face_of(picture: Picture) -> tuple[int, int, int] | None:
    """(x, y, size) in px of the face that a name ending in ``_x_y_w_h`` tells of, or None."""
    match = _FACE.search(picture.path.stem)
    if match is None:
        return None
    x, y, width, height = map(int, match.groups())
    inside = x < picture.geometry.original[0] and y < picture.geometry.original[1]
    return (x, y, max(width, height)) if inside and width and height else None


def _around(
    face: tuple[int, int, int], span: tuple[float, float], plain: Geometry, wander: bool, rng: Random
) -> Geometry:
    """A cut with the face in its middle, between ``span`` times as wide as the face.

    The picture is never enlarged for it, and never shrunk below its bucket.
    """
    x, y, size = face
    (width, height), bucket = plain.original, plain.bucket
    least = max(bucket[0] / width, bucket[1] / height)
    low, high = (min(max(least, max(bucket) / (size * times)), max(least, 1.0)) for times in span[::-1])
    scale = rng.uniform(low, high)
    resized = (max(bucket[0], round(width * scale)), max(bucket[1], round(height * scale)))
    crop: list[int] = []
    for centre, side, whole in zip((x, y), bucket, resized, strict=True):
        reach = side / 2 if wander else JITTER * size * scale
        start = round(centre * scale - side / 2 + rng.uniform(-reach, reach))
        crop.append(max(0, min(start, whole - side)))
    return Geometry(plain.original, resized, bucket, (crop[0], crop[1]))


def colours_at(pixels: Array, picture: Picture, seed: int, visit: int) -> Array:
    """``pixels`` with a slight change of hue, saturation, brightness and gamma at a visit."""
    if not picture.subset.color_aug:
        return pixels
    import cv2
    import numpy as np

    rng = keyed.python(seed, "colour", picture.id, visit)
    turn = rng.uniform(-HUE, HUE) * 360
    saturation = 1 + rng.uniform(-SATURATION, SATURATION)
    brightness = 1 + rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    gamma = 1 + rng.uniform(-GAMMA, GAMMA)
    hsv = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + turn) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] * brightness, 0, 1) ** gamma
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8)
