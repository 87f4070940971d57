"""All texts of the page, in the language of whoever looks at it.

- The page's own texts have keys: one flat JSON file a language beside this one,
  ``{"train.start": "Start training", ...}``, with ``{name}`` parts that :func:`t` fills.
- Labels and help of options stand in the settings schema; ``options.<language>.json`` holds them in
  other languages by key (``option.learning_rate.label``), see :mod:`ui.i18n.options`.
- What the backend says is translated by its template: see :mod:`backend.messages` and :func:`said`.

A key that a language lacks is taken from English; a test fails for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from backend.messages import translated, translated_problem
from ui.i18n.language import DEFAULT, NAMES, language, speaking

__all__ = [
    "DEFAULT",
    "NAMES",
    "catalogue",
    "language",
    "languages",
    "retold",
    "said",
    "said_problem",
    "speaking",
    "t",
    "texts",
]


@cache
def catalogue(language: str = DEFAULT) -> dict[str, str]:
    """All texts of a language, filled up from English."""
    path = Path(__file__).parent / f"{language}.json"
    own: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return own if language == DEFAULT else {**catalogue(DEFAULT), **own}


def languages() -> list[str]:
    """Languages of the page."""
    return list(NAMES)


def t(key: str, /, **parts: object) -> str:
    """The text of a key, with ``{name}`` parts filled. An unknown key is a mistake of ours."""
    text = catalogue(language())[key]
    return text.format(**parts) if parts else text


def retold(text: str, keys: Sequence[str]) -> str:
    """A text of one of ``keys`` that was written down in some language, in the reader's; else as it is."""
    for name in NAMES:
        found = next((key for key in keys if catalogue(name)[key] == text), None)
        if found:
            return t(found)
    return text


def texts(*prefixes: str) -> dict[str, str]:
    """All texts whose key starts with one of the prefixes, for scripts in the page."""
    return {key: text for key, text in catalogue(language()).items() if key.startswith(prefixes)}


def said(message: str) -> str:
    """What the backend says, in the reader's language."""
    return translated(message, language())


def said_problem(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem as a dict, in the reader's language."""
    return translated_problem(problem, language())
