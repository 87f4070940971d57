"""The page's own texts by key. Labels and help of options come from the settings schema instead.

One JSON file a language beside this one, flat: ``{"train.start": "Start training", ...}``. A text
may hold ``{name}`` parts, filled by :func:`t`. A key that a language lacks is taken from English.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

DEFAULT = "en"


@cache
def catalogue(language: str = DEFAULT) -> dict[str, str]:
    """All texts of a language, filled up from English."""
    path = Path(__file__).parent / f"{language}.json"
    own: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return own if language == DEFAULT else {**catalogue(DEFAULT), **own}


def languages() -> list[str]:
    """Languages there is a file for."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.json"))


def t(key: str, /, language: str = DEFAULT, **parts: object) -> str:
    """The text of a key, with ``{name}`` parts filled. An unknown key is a mistake of ours."""
    text = catalogue(language)[key]
    return text.format(**parts) if parts else text


def texts(*prefixes: str, language: str = DEFAULT) -> dict[str, str]:
    """All texts whose key starts with one of the prefixes, for scripts in the page."""
    return {key: text for key, text in catalogue(language).items() if key.startswith(prefixes)}
