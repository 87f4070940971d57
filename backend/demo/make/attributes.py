"""What can be read off a scene, as class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.demo.world import BACKGROUNDS, COLOURS, FACES, PATTERNS, SHAPES, SIZES, Scene

_THING: Mapping[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "face": FACES,
    "size": SIZES,
}
CLASSES: Mapping[str, tuple[str, ...]] = {**_THING, "background": BACKGROUNDS}
"""Attributes of a picture of one thing and their values."""
CLASSES_OF_TWO: Mapping[str, tuple[str, ...]] = {
    **CLASSES,
    **{f"second {name}": ("nothing", *values) for name, values in _THING.items()},
}
"""The same with a second thing, which may be missing."""


def classes(scene: Scene, table: Mapping[str, Sequence[str]] = CLASSES) -> list[int]:
    """Class numbers of ``scene`` in the order of ``table``."""
    first = scene.things[0]
    second = scene.things[1] if len(scene.things) > 1 else None
    found: list[int] = []
    for name, values in table.items():
        if name == "background":
            value = scene.background
        elif name.startswith("second "):
            value = str(getattr(second, name.removeprefix("second "), "nothing"))
        else:
            value = str(getattr(first, name))
        found.append(values.index(value))
    return found
