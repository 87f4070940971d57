"""File names that make trouble, and how they are shown and mended."""

from __future__ import annotations

import unicodedata

_BAD = ("Cc", "Cs")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
"""Marks that turn the direction of text and make a name read otherwise than it is."""


def bad_letters(name: str) -> list[str]:
    """Control characters, turning marks and bytes that are no text, each as ``U+0007``."""
    return [f"U+{ord(letter):04X}" for letter in name if _bad(letter)]


def clean_name(name: str) -> str:
    """``name`` with a low line for each of them."""
    return "".join("_" if _bad(letter) else letter for letter in name)


def shown(text: str) -> str:
    """``text`` as it can be printed safely: what is no plain letter is written as an escape."""
    return "".join(
        letter.encode("unicode_escape").decode("ascii") if _bad(letter) and letter not in "\n\t" else letter
        for letter in text
    )


def _bad(letter: str) -> bool:
    return letter in _TURNS or unicodedata.category(letter) in _BAD
