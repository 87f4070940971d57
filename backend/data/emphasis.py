"""Emphasis in prompts and captions: ``(word:1.2)``, ``(word)``, ``[word]``, as WebUI and sd-scripts read it.

``(x)`` counts 1.1 times, ``[x]`` 1 / 1.1 times, ``(x:w)`` w times; nested ones multiply. A bracket that is
never closed reaches to the end. ``\\(``, ``\\)``, ``\\[``, ``\\]`` and ``\\\\`` are the signs themselves.
"""

from __future__ import annotations

import re
from typing import NamedTuple

STEP = 1.1
"""What one bracket multiplies by."""

_PIECE = re.compile(
    r"\\(?P<escaped>[\\()\[\]])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|[\\:])"
)


class Part(NamedTuple):
    """A piece of text and how much its tokens count."""

    text: str
    weight: float = 1.0


class _Open(NamedTuple):
    bracket: str
    start: int
    """Number of the first part inside."""


def parse(text: str) -> list[Part]:
    """The parts of a text, brackets gone; neighbours of equal weight are one. [] for an empty text."""
    parts: list[Part] = []
    stack: list[_Open] = []
    for match in _PIECE.finditer(text):
        kind = match.lastgroup
        if kind == "open":
            stack.append(_Open(match[0], len(parts)))
        elif kind == "weight" and _inside(stack, "("):
            _scale(parts, _closed(stack, "("), float(match["weight"]))
        elif kind == "close" and _inside(stack, "(" if match[0] == ")" else "["):
            bracket = "(" if match[0] == ")" else "["
            _scale(parts, _closed(stack, bracket), STEP if bracket == "(" else 1 / STEP)
        else:
            parts.append(Part(match["escaped"] or match[0]))
    for left in stack:
        _scale(parts, left.start, STEP if left.bracket == "(" else 1 / STEP)
    return _joined(parts)


def plain(text: str) -> str:
    """The text without its emphasis."""
    return "".join(part.text for part in parse(text))


def _inside(stack: list[_Open], bracket: str) -> bool:
    return any(one.bracket == bracket for one in stack)


def _closed(stack: list[_Open], bracket: str) -> int:
    """Close the innermost bracket of a kind; others, opened inside it, stay open."""
    index = max(i for i, one in enumerate(stack) if one.bracket == bracket)
    return stack.pop(index).start


def _scale(parts: list[Part], start: int, factor: float) -> None:
    parts[start:] = [Part(text, weight * factor) for text, weight in parts[start:]]


def _joined(parts: list[Part]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if found and found[-1].weight == part.weight:
            found[-1] = Part(found[-1].text + part.text, part.weight)
        else:
            found.append(part)
    return found
