"""Whether a picture shows the demo's creature: its colours, laid out as in its twelve pictures.

Around the violet of a picture a window is laid as it lies around the creature's body. Within it the places of
each of the creature's colours are compared with where the twelve pictures have them. No learning is involved:
what counts as alike is said here, and the pictures are the measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.demo import subject

Plane = npt.NDArray[np.float64]
GRID = 20
"""Cells along a side of the window."""
FOUND = 0.5
"""Likeness from which a picture counts as one of the creature."""
_BLUR = 45.0
"""Distance of colours (RGB) at which they count for 0.37 as much."""
_FAR = 0.1
"""Less than this is no likeness of colours."""
_UP, _SIDE, _DOWN = 0.55, 0.15, 0.12
"""How far the window reaches beyond the body, in its height and width."""
_PARTS = {"body": 0.3, "horns": 0.25, "eye": 0.25, "dark": 0.2}
"""What is compared, and how much it counts; ``dark``: pupil, mouth and outline."""


@dataclass(frozen=True)
class Likeness:
    """How alike the parts are, -1 to 1 (correlation of places); 0 when there is no body."""

    parts: dict[str, float]

    @property
    def whole(self) -> float:
        return sum(_PARTS[name] * max(0.0, value) for name, value in self.parts.items())


def likeness(picture: Image.Image) -> Likeness:
    """Compare ``picture`` with the twelve."""
    seen = _laid_out(picture)
    if seen is None:
        return Likeness(dict.fromkeys(_PARTS, 0.0))
    return Likeness({name: _correlation(seen[name], _template()[name]) for name in _PARTS})


def found(pictures: Sequence[Image.Image]) -> int:
    """In how many pictures the creature is."""
    return sum(likeness(picture).whole >= FOUND for picture in pictures)


@cache
def _template() -> dict[str, Plane]:
    """Where the twelve pictures have each part, on the average."""
    layouts = [
        _laid_out(subject.draw(pose, scene, index)) for index, (pose, scene) in enumerate(subject.PICTURES)
    ]
    known = [layout for layout in layouts if layout is not None]
    assert len(known) == len(subject.PICTURES), "the creature's own pictures have no body"
    return {name: np.mean([layout[name] for layout in known], axis=0) for name in _PARTS}


def _laid_out(picture: Image.Image) -> dict[str, Plane] | None:
    """Amount of each part in the cells of the window around the body; None without enough violet."""
    pixels = np.asarray(picture.convert("RGB").resize((subject.SIZE, subject.SIZE)), dtype=np.float64)
    body = _near(pixels, subject.BODY)
    if not 0.03 < body.mean() < 0.6:
        return None
    left, right = _middle(body.sum(axis=0))
    top, bottom = _middle(body.sum(axis=1))
    wide, high = right - left, bottom - top
    window = (left - _SIDE * wide, top - _UP * high, right + _SIDE * wide, bottom + _DOWN * high)
    planes = {
        "body": body,
        "horns": _near(pixels, subject.HORN),
        "eye": _near(pixels, subject.WHITE),
        "dark": _near(pixels, subject.INK),
    }
    return {name: _cut(plane, window) for name, plane in planes.items()}


def _near(pixels: Plane, colour: tuple[int, int, int]) -> Plane:
    """How close each pixel is to a colour, 0 to 1. Far ones are 0: a background of them would add up."""
    distance = np.sqrt(((pixels - np.array(colour)) ** 2).sum(axis=-1))
    near = np.exp(-((distance / _BLUR) ** 2))
    return np.where(near < _FAR, 0.0, near)


def _middle(profile: Plane) -> tuple[float, float]:
    """The range that holds the middle 94 % of a profile's weight."""
    share = np.cumsum(profile) / profile.sum()
    return float(np.searchsorted(share, 0.03)), float(np.searchsorted(share, 0.97)) + 1


def _cut(plane: Plane, window: tuple[float, float, float, float]) -> Plane:
    """The window as GRID x GRID cells; nothing lies outside the picture."""
    image = Image.fromarray(plane.astype(np.float32))
    cut = image.transform((4 * GRID, 4 * GRID), Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
    cells = np.asarray(cut, dtype=np.float64).reshape(GRID, 4, GRID, 4)
    return cells.mean(axis=(1, 3))


def _correlation(one: Plane, other: Plane) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / size) if size > 1e-6 else 0.0
