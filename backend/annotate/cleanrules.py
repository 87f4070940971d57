"""Rules for cleaning captions and tags: data that people see, switch and edit.

A rule of a caption replaces what its expression finds. A rule of tags drops whole tags: those that it finds,
only beside a tag that ``when`` finds, or only when it finds several (they contradict each other).
Expressions are Python's, upper and lower case alike; one for a tag has to fit the whole tag, in which
underscores count as blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from backend.data.edit.types import compile_regex
from backend.errors import InputError, Problem

Kind = Literal["replace", "drop", "drop_several"]
On = Literal["caption", "tags"]


@dataclass(frozen=True)
class Rule:
    """One rule."""

    id: str
    title: str
    on: On
    kind: Kind
    pattern: str
    with_: str = ""
    """What a caption gets in place of what was found; groups as \\1."""
    when: str = ""
    """For tags: only beside a tag that this finds."""
    enabled: bool = True

    def __post_init__(self) -> None:
        compile_regex(self.pattern)
        compile_regex(self.when)
        problem = _fault(self)
        if problem:
            raise InputError(f"the rule {self.title or self.id!r} {problem}", key=self.id)


def as_dicts(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Rules as plain data, for a page and a file."""
    return [
        {("with" if key == "with_" else key): value for key, value in asdict(rule).items()} for rule in rules
    ]


def from_dicts(rows: Any) -> tuple[Rule, ...]:
    """Rules out of plain data. Raises InputError naming every rule that cannot be used."""
    if not isinstance(rows, list):
        raise InputError("rules are a list of tables")
    rules: list[Rule] = []
    problems: list[Problem] = []
    for number, row in enumerate(cast("list[Any]", rows), 1):
        try:
            rules.append(_rule(row, number))
        except InputError as error:
            problems += [replace(problem, where=f"rule {number}") for problem in error.problems]
    if problems:
        raise InputError(problems)
    return tuple(rules)


def _rule(row: Any, number: int) -> Rule:
    if not isinstance(row, dict):
        raise InputError("is no table")
    table = {
        ("with_" if key == "with" else str(key)): value for key, value in cast("dict[Any, Any]", row).items()
    }
    known = {field.name for field in fields(Rule)}
    unknown = [key for key in table if key not in known]
    if unknown:
        raise InputError(f"unknown key {unknown[0]}", why=f"known: {', '.join(sorted(known))}")
    wrong = [key for key, value in table.items() if not isinstance(value, bool if key == "enabled" else str)]
    if wrong:
        raise InputError(f"{wrong[0]} has a value of the wrong kind")
    defaults: dict[str, Any] = {"id": f"own_{number}", "title": str(table.get("pattern", ""))}
    try:
        return Rule(**{**defaults, **table})
    except TypeError as error:
        raise InputError(f"on, kind and pattern are needed ({error})") from None


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Rules out of a JSON file. Raises InputError."""
    try:
        return from_dicts(json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read ({(error.strerror or '').lower()})", where=str(path)
        ) from None
    except ValueError as error:
        raise InputError(f"{path.name} is not valid JSON", where=str(path), why=str(error)) from None


def _fault(rule: Rule) -> str:
    """What is wrong with a rule's values, '' when nothing is."""
    if rule.on not in get_args(On) or rule.kind not in get_args(Kind):
        known = f"{', '.join(get_args(On))}; {', '.join(get_args(Kind))}"
        return f"is for {rule.on!r} by {rule.kind!r}: known are {known}"
    if not rule.pattern.strip():
        return "has no expression"
    if (rule.kind == "replace") != (rule.on == "caption"):
        return "does not fit: captions are replaced in, tags are dropped"
    return _bad_replacement(rule)


def _bad_replacement(rule: Rule) -> str:
    try:
        re.compile(f"(?:{rule.pattern})|", re.IGNORECASE).sub(rule.with_, "")
    except re.error as error:
        return f"cannot be used: {error}"
    except IndexError as error:
        return f"puts in a group that it does not have: {error}"
    return ""


_PEOPLE = r"(\d+\+?|multiple )(girls|boys|others)"

RULES: tuple[Rule, ...] = (
    Rule(
        "writing_on", "Talk of writing: 'with the words stop on it'", "caption", "replace",
        r",?\s*\b(that|which)?\s*(with|has|have|having|and|says?|saying|reads?|reading)\s+(the|a)\s+"
        r"(words?|letters?|numbers?|names?|text|title|logo)\b(\s+(\"[^\"]*\"|'[^']*'|[^\s,.]+))?"
        r"(\s+(written\s+)?(on|in|across)\s+(it|its|the|his|her|their)(\s+\w+)?)?",
    ),
    Rule(
        "writing_says", "Talk of writing: 'that says stop'", "caption", "replace",
        r",?\s*\b(that|which)\s+(says?|reads?)\b[^,.]*",
    ),
    Rule("arafed", "A word BLIP makes up", "caption", "replace", r"\b(there (is|are) )?araff?ed?\b ?"),
    Rule("there_is", "'there is' at the beginning", "caption", "replace", r"^\s*there (is|are)\s+"),
    Rule(
        "picture_of", "'a picture of' at the beginning", "caption", "replace",
        r"^\s*(an?|the|this)?\s*(picture|photo|photograph|image|close[- ]?up)\s+(of|shows|showing)\s+",
        enabled=False,
    ),
    Rule("doubled_words", "The same word twice in a row", "caption", "replace", r"\b(\w+)(\s+\1\b)+", r"\1"),
    Rule(
        "hair_length", "Hair lengths that contradict each other", "tags", "drop_several",
        r"(very |absurdly )?(long|medium|short) hair",
    ),
    Rule("view", "Views that contradict each other", "tags", "drop_several", "from (above|below|behind)"),
    Rule(
        "whose_hair", "Hair and eyes of several people: it is not clear whose", "tags", "drop",
        ".+ (hair|eyes)", when=_PEOPLE,
    ),
    Rule("solo", "'solo' beside several people", "tags", "drop", r"solo( focus)?", when=_PEOPLE),
    Rule(
        "marks", "Watermarks, signatures and the like", "tags", "drop",
        r"(.* )?(watermark|signature|username|artist name|web address|logo|dated)", enabled=False,
    ),
)  # fmt: skip
"""The rules that Atelier comes with."""
WRITING = ("writing_on", "writing_says")
"""Rules on captions that talk of writing."""
