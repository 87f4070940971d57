"""Every text that is asked for exists, and every text is asked for."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from ui.i18n import DEFAULT, catalogue, languages, t, texts

UI = Path(__file__).resolve().parents[2] / "ui"
SOURCES = [*UI.rglob("*.py"), *(UI / "assets").glob("*.js"), *(UI / "assets").glob("*.html")]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
BUILT = (
    "train.state.",
    "runs.state.",
    "train.captions_",
    "app.",
    "train.toml",
    "train.command",
    "live.",
    "gen.",
    "data.",
    "models.",
)
"""Keys with these beginnings are put together in code."""


def test_every_key_is_used():
    unused = [key for key in catalogue() if f'"{key}"' not in CODE and f"[[{key}]]" not in CODE]
    assert [key for key in unused if not key.startswith(BUILT)] == []


def test_every_key_that_is_asked_for_exists():
    asked = set(re.findall(r'\b(?:t|text)\(\s*"([a-z_]+\.[a-z_.]+)"', CODE))
    asked |= set(
        re.findall(
            r"\[\[([a-z_.]+)\]\]",
            "\n".join(path.read_text(encoding="utf-8") for path in (UI / "assets").glob("*.html")),
        )
    )
    assert len(asked) > 60
    assert sorted(key for key in asked if key not in catalogue()) == []


def test_parts_are_filled_and_unknown_keys_are_a_mistake():
    assert t("train.steps_n", n=5) == "5 steps"
    with pytest.raises(KeyError):
        t("no.such.key")


def test_other_languages_have_the_same_keys_and_parts():
    def parts(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for language in languages():
        own = catalogue(language)
        assert set(own) == set(catalogue(DEFAULT))
        assert [key for key in own if parts(own[key]) != parts(catalogue(DEFAULT)[key])] == []


def test_scripts_get_the_texts_they_ask_for():
    assert set(texts("runs.")) == {key for key in catalogue() if key.startswith("runs.")}
