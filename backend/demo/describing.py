"""Captions for a new subject's pictures: what the bundled models see around it, behind its trigger words.

The trigger is to stand for everything that makes the subject, so words for the subject itself ("a green
ring") are left out; what stays in the caption, its surroundings, stays changeable in a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from backend.demo.reading import CaptionReader, TagReader
from backend.demo.world import SCENES
from backend.wholefile import write_text

SURE = 0.6
"""Probability from which a tag of the surroundings takes the place of one that the caption does not tell."""
_PLACE = re.compile(r"\b(?:on an?|in an?|in the|at night)\b")
_BATCH = 4


def describe(
    folder: Path, trigger: str, on_picture: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """Write a caption file beside every picture of ``folder``; returns name of the picture -> caption.

    ``on_picture`` is told (pictures described, pictures in all).

    :raises InputError: when the bundled tagger or captioner is missing.
    """
    captioner, tagger = CaptionReader(), TagReader()
    paths = sorted(folder.glob("*.png"))
    found: dict[str, str] = {}
    for first in range(0, len(paths), _BATCH):
        some = paths[first : first + _BATCH]
        pictures = [Image.open(path).convert("RGB") for path in some]
        seen = zip(some, captioner.captions_of(pictures), tagger.tags_of(pictures, SURE), strict=True)
        for path, text, tags in seen:
            found[path.name] = merged(trigger, text, tags)
            write_text(path.with_suffix(".txt"), found[path.name] + "\n")
        on_picture(len(found), len(paths))
    return found


def merged(trigger: str, caption: str, tags: list[str]) -> str:
    """``sks creature in a meadow``: the trigger and the caption's place, or else the tagger's."""
    place = _PLACE.search(caption)
    if place:
        return f"{trigger} {caption[place.start() :]}"
    return ", ".join([trigger, *(tag for tag in tags if tag in SCENES or tag.endswith(" background"))])
