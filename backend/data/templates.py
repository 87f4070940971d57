"""Captions made of a word, for pictures that have none (Gal et al. 2022 teach words by such sentences).

Sentences of their kind were first used to read classes with CLIP (Radford et al. 2021): another one at
every visit, so that the word is what they have in common.
"""

from __future__ import annotations

_VIEWS = (
    "a photo of {}", "a picture of {}", "a close-up of {}", "a snapshot of {}", "a rendering of {}",
    "a good photo of {}", "a bright photo of {}", "a dark photo of {}", "a clean photo of {}",
    "a cropped photo of {}", "a small photo of {}", "a large photo of {}",
)  # fmt: skip
_THINGS = ("a {}", "the {}", "one {}", "my {}")
_WORKS = (
    "a painting", "a picture", "a drawing", "an illustration", "a rendering", "a poster", "a sketch",
    "a small painting", "a large painting", "a detail of a painting", "a bright picture", "a dark picture",
)  # fmt: skip
_MANNERS = ("in the style of {}", "by {}")


def object_captions(word: str) -> tuple[str, ...]:
    """Captions of a thing that is called ``word``."""
    return tuple(view.format(thing.format(word)) for view in _VIEWS for thing in _THINGS)


def style_captions(word: str) -> tuple[str, ...]:
    """Captions of works in a style that is called ``word``."""
    return tuple(f"{work} {manner.format(word)}" for work in _WORKS for manner in _MANNERS)
