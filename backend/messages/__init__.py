"""What the backend says, in the reader's language.

English stands in the code, where a message is made; run folders and logs keep it. A message is
translated where somebody reads it, so that a run made by one person reads well for another. Its
identity is its template: the text with ``{0}``, ``{1}``, ... for the values, in their order. One
JSON file a language beside this one holds

- ``templates``: the template as it stands in the code -> its translation;
- ``pieces``: the same for texts that are put together in code and stand inside of others;
- ``labels``: words that stand alone, such as the names of facts about a run.

A piece's value may be written ``{0:n}``, which takes a number only, or ``{0:w}``, which takes one word.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

ENGLISH = "en"
VARIABLE = "ATELIER_LANGUAGE"
"""The language of command lines; English when unset."""
_PART = re.compile(r"\{(\d*)(:[nw])?\}|\{\{|\}\}")
_VALUES = {"value": "(.+?)", "number": r"([+-]?\d[\d.,]*)", "word": r"([^\s,;:]+)"}
"""What each kind of value may be, as an expression."""
_KINDS = {None: "value", ":n": "number", ":w": "word"}
_FEWEST_LETTERS = 4
"""A template with fewer letters of its own would fit texts it has nothing to do with."""
_LONGEST = 2000
"""Longer texts are technical output, and are left as they are."""
_DEEPEST = 3
"""Values inside values that are looked at."""
_FEWEST_BLANKS = 2
"""Shorter values inside of a message are taken for names of files, tags and the like, and stay."""
_READ = ("what", "where", "why", "next")
"""Parts of a problem that are sentences."""


@dataclass(frozen=True)
class _Pattern:
    """A template with values, ready to be found in a text."""

    anchor: str
    """Its longest piece of own text, which is looked for first because that is quick."""
    source: str
    order: tuple[int, ...]
    """The number of each value in the order in which they stand."""
    translation: str
    letters: int
    """The length of its own text: of two that fit, the one that says more is meant."""

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Made when it is first needed: most never are."""
        return re.compile(self.source, re.DOTALL)


@dataclass(frozen=True)
class _Catalogue:
    exact: Mapping[str, str]
    patterns: Sequence[_Pattern]
    """Those with the most own text first."""


def languages() -> list[str]:
    """Languages that there are translations into."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.json"))


@cache
def templates(language: str) -> Mapping[str, str]:
    """Template in English -> in ``language``."""
    return _read(language).get("templates", {})


@cache
def pieces(language: str) -> Mapping[str, str]:
    """Template of a part of messages in English -> in ``language``."""
    return _read(language).get("pieces", {})


@cache
def labels(language: str) -> Mapping[str, str]:
    """Words that stand alone in English -> in ``language``."""
    return _read(language).get("labels", {})


@lru_cache(8192)
def translated(text: str, language: str) -> str:
    """A message in ``language``; as it is where there is no translation."""
    if language == ENGLISH or not text or len(text) > _LONGEST:
        return text
    whole = labels(language).get(text) or _by_pattern(text, language, 0)
    return whole or "\n".join(_line(line, language) for line in text.split("\n"))


def translated_problem(problem: Mapping[str, Any], language: str) -> dict[str, Any]:
    """A :class:`backend.errors.Problem` as a dict, with what a person reads in ``language``."""
    return {key: translated(text, language) if key in _READ else text for key, text in problem.items()}


def of_command_line() -> str:
    """The language that command lines speak."""
    wanted = os.environ.get(VARIABLE, "").lower().partition("_")[0].partition("-")[0]
    return wanted if wanted in languages() else ENGLISH


def is_translatable(template: str) -> bool:
    """Whether a template has enough text of its own to be known again."""
    return len(re.sub(r"[\W\d_]", "", _PART.sub("", template))) >= _FEWEST_LETTERS


def is_known(template: str, language: str) -> bool:
    """Whether a message of this template is translated, by itself or by a piece that is like it."""
    return (
        template in templates(language) or _by_pattern(_with_words(template), language, _DEEPEST) is not None
    )


def _with_words(template: str) -> str:
    """A message as it may come from a template: each value is a word."""
    return "".join(text if kind == "text" else f"value{text}" for kind, text in parts_of(template))


def _read(language: str) -> dict[str, dict[str, str]]:
    path = Path(__file__).parent / f"{language}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _line(line: str, language: str) -> str:
    """One line of a message; blanks and an arrow before it stay."""
    start = re.match(r"\s*(?:-> )?", line)
    head = start[0] if start else ""
    return head + (_found(line[len(head) :], language, 0) or line[len(head) :])


def _found(text: str, language: str, depth: int) -> str | None:
    return _by_pattern(text, language, depth) or _after_a_place(text, language, depth)


def _by_pattern(text: str, language: str, depth: int) -> str | None:
    catalogue = _catalogue(language)
    if text in catalogue.exact and (not depth or _is_message(text, language)):
        return catalogue.exact[text]
    for pattern in catalogue.patterns:
        match = pattern.anchor in text and pattern.expression.fullmatch(text)
        if match:
            return _filled(pattern, match.groups(), language, depth)
    return None


def _is_message(text: str, language: str) -> bool:
    return text.count(" ") >= _FEWEST_BLANKS or text in pieces(language)


def _filled(pattern: _Pattern, values: Sequence[str], language: str, depth: int) -> str:
    shown = dict(zip(pattern.order, values, strict=True))
    if depth < _DEEPEST:
        shown = {number: _found(value, language, depth + 1) or value for number, value in shown.items()}
    return _with_values(pattern.translation, shown)


def _after_a_place(text: str, language: str, depth: int) -> str | None:
    """``place: message`` with the message translated, or ``message (remark)`` with both."""
    if depth >= _DEEPEST:
        return None
    for joint in (": ", "; ", ". "):
        head, found, rest = text.partition(joint)
        if found and rest:
            first, second = _found(head, language, _DEEPEST), _found(rest, language, depth + 1)
            if second or (first and joint != ": "):
                return (first or head) + joint + (second or rest)
    return None


@cache
def _catalogue(language: str) -> _Catalogue:
    exact: dict[str, str] = {}
    patterns: list[_Pattern] = []
    for template, translation in {**templates(language), **pieces(language)}.items():
        if all(kind == "text" for kind, _ in parts_of(template)):
            exact[_plain(template)] = _plain(translation)
        elif is_translatable(template):
            patterns.append(_pattern(template, translation))
    patterns.sort(key=lambda one: -one.letters)
    return _Catalogue(exact, patterns)


def _pattern(template: str, translation: str) -> _Pattern:
    expression, own, order = "", [""], list[int]()
    for kind, text in parts_of(template):
        if kind == "text":
            expression += re.escape(text)
            own[-1] += text
        else:
            expression += _VALUES[kind]
            order.append(int(text))
            own.append("")
    return _Pattern(max(own, key=len), expression, tuple(order), translation, sum(map(len, own)))


def parts_of(template: str) -> Iterator[tuple[str, str]]:
    """``("text", own text)``, and for a value its kind (``value``, ``number``, ``word``) and its place."""
    end = 0
    for found in _PART.finditer(template):
        yield "text", template[end : found.start()]
        end = found.end()
        if found[0] in ("{{", "}}"):
            yield "text", found[0][0]
        else:
            yield _KINDS[found[2]], found[1]
    yield "text", template[end:]


def _with_values(translation: str, values: Mapping[int, str]) -> str:
    return "".join(text if kind == "text" else values[int(text)] for kind, text in parts_of(translation))


def _plain(template: str) -> str:
    return _with_values(template, {})
