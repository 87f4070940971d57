"""Every text that is asked for exists, every text is asked for, and each is there in every language."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from backend import messages
from backend.generate.protocol import ENCODERS
from backend.messages import pieces, templates
from ui.i18n import DEFAULT, NAMES, catalogue, languages, sources, speaking, t, texts
from ui.i18n.options import english, option_texts

UI = Path(__file__).resolve().parents[2] / "ui"
SOURCES = [*UI.rglob("*.py"), *(UI / "assets").glob("*.js"), *(UI / "assets").glob("*.html")]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
OTHERS = [name for name in NAMES if name != DEFAULT]
BUILT = {
    beginning
    for found in re.findall(
        r"""[fF]["']([a-z][a-z_.0-9]*[._])\{|`([a-z][a-z_.0-9]*[._])\$\{|["']([a-z][a-z_.0-9]*[._])["'] ?\+"""
        r"""|prefix: ["']([a-z]+\.)["']""",
        CODE,
    )
    for beginning in found
    if beginning
}
"""Beginnings of keys that are put together in code, such as ``t(f"runs.state.{state}")``."""


ENDINGS = set(re.findall(r"""[}"'`](_[a-z]+)["'`]""", CODE))
"""Endings that are put behind keys in code, such as ``_one`` and ``_n`` of counts."""


def is_asked_for(key: str) -> bool:
    """Whether the code has a key: whole, by its beginning or without its ending, or, where a page puts
    its own name first, the rest."""
    page, _, rest = key.partition(".")
    if any(form in CODE for form in (f'"{key}"', f"'{key}'", f"[[{key}]]")) or key.startswith(
        tuple(BUILT - {f"{page}."})
    ):
        return True
    if any(rest.endswith(ending) and is_asked_for(key.removesuffix(ending)) for ending in ENDINGS):
        return True
    return f"{page}." in BUILT and (f'"{rest}"' in CODE or rest in ENCODERS or rest.startswith(tuple(BUILT)))


def named_parts(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def numbered_parts(template: str) -> list[str]:
    return sorted({text for kind, text in messages.parts_of(template) if kind != "text"})


def raw(language: str, name: str = "") -> dict[str, str]:
    """A file of translations as it is, not filled up from English."""
    import json

    path = UI / "i18n" / f"{name}{language}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_key_is_used():
    assert [key for key in catalogue() if not is_asked_for(key)] == []


def test_every_key_that_is_asked_for_exists():
    asked = set(re.findall(r'\b(?:t|text)\(\s*"([a-z_]+\.[a-z_.]+)"', CODE))
    asked |= set(
        re.findall(
            r"\[\[([a-z_.]+)\]\]",
            "\n".join(path.read_text(encoding="utf-8") for path in (UI / "assets").glob("*.html")),
        )
    )
    assert len(asked) > 60
    assert sorted(asked - catalogue().keys() - BUILT) == []


def test_parts_are_filled_and_unknown_keys_are_a_mistake():
    assert t("train.steps_n", n=5) == "5 steps"
    with pytest.raises(KeyError):
        t("no.such.key")


def test_scripts_get_the_texts_they_ask_for():
    assert set(texts("runs.")) == {key for key in catalogue() if key.startswith("runs.")}


def test_texts_are_of_the_language_spoken():
    with speaking("ja"):
        assert t("app.train") == catalogue("ja")["app.train"] != catalogue("zh")["app.train"]
        assert texts("runs.title") == {"runs.title": catalogue("ja")["runs.title"]}
    assert t("app.train") == "Train"


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize(("name", "source"), [("", catalogue), ("options.", english)])
def test_each_language_has_every_text_and_no_other(
    language: str, name: str, source: Callable[[], dict[str, str]]
):
    own, wanted = raw(language, name), source()
    assert sorted(wanted.keys() - own.keys()) == []
    assert sorted(own.keys() - wanted.keys()) == []
    assert [key for key, text in own.items() if not text.strip()] == []
    assert [key for key in own if name == "" and named_parts(own[key]) != named_parts(wanted[key])] == []


@pytest.mark.parametrize("language", OTHERS)
def test_translations_are_in_their_own_letters(language: str):
    """Help texts are sentences, so each holds letters of its language; kana tells Japanese from Chinese."""
    own = {key: text for key, text in option_texts(language).items() if key.endswith(".help")}
    assert [key for key, text in own.items() if not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text)] == []
    kana = [key for key, text in own.items() if re.search(r"[\u3040-\u30ff]", text)]
    assert len(kana) > len(own) * 0.8 if language == "ja" else kana == []


def test_every_page_speaks_the_languages_offered():
    assert languages() == ["en", "ja", "zh"] == [DEFAULT, *messages.languages()]


def test_english_that_changed_was_looked_at_in_every_language():
    """Look at what ``python -m ui.i18n`` tells, then accept it with ``--accept``."""
    assert sources.changed() == []


# -- what the backend says ------------------------------------------------------------------------


def test_the_list_of_what_is_not_translated_only_becomes_shorter():
    missing, accepted = set(sources.missing()), set(sources.accepted())
    assert len(sources.wanted()) > 1000
    assert sorted(missing - accepted) == [], "a message without a translation"
    assert sorted(accepted - missing) == [], "take what is translated or gone off the list"


def test_nothing_is_translated_that_nobody_says():
    assert sources.unused() == []


@pytest.mark.parametrize("language", OTHERS)
def test_messages_keep_their_values(language: str):
    both = {**templates(language), **pieces(language)}
    assert len(both) > 500
    assert [text for text in both if numbered_parts(text) != numbered_parts(both[text])] == []


@pytest.mark.parametrize("language", OTHERS)
def test_every_message_is_found_again_by_what_it_says(language: str):
    """Each template, filled with values, is known by itself and not taken for another."""
    wrong: list[str] = []
    for template, translation in templates(language).items():
        numbers = numbered_parts(template)
        if numbers and not messages.is_translatable(template):
            continue
        said = filled(template, numbers)
        if messages.translated(said, language) != filled(translation, numbers):
            wrong.append(template)
    assert wrong == []


def filled(template: str, numbers: list[str]) -> str:
    values = {number: f"<{chr(65 + place)}>" for place, number in enumerate(numbers)}
    return "".join(text if kind == "text" else values[text] for kind, text in messages.parts_of(template))


def test_rules_are_read_with_their_values_numbered():
    assert sources.numbered("{a_b}: {{x}} is not {c}") == "{0}: {{x}} is not {1}"
    assert "bucket_reso_steps: {0} is not a multiple of 8" in sources.wanted()


def test_sources_are_read_as_templates(tmp_path: Path):
    (tmp_path / "some.py").write_text(
        'raise InputError(f"{a} is no " + word, next="do this" if b else f"do {c!r} again", key="no key of ours")\n'
        'log("not said to people")\n',
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "REPOSITORY", tmp_path)
        found = sources.spoken_templates(tmp_path)
    assert list(found) == ["{0} is no {1}", "do this", "do {0} again"]
