"""Cleaning captions and tags by the rules of :mod:`backend.annotate.cleanrules`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from backend.annotate.cleanrules import Rule
from backend.data.edit.operations import join_tags, split_tags
from backend.data.edit.types import compile_regex


def clean_caption(text: str, rules: Iterable[Rule]) -> str:
    """A caption after the rules that are on; line breaks stay, blanks are put in order."""
    chosen = [rule for rule in rules if rule.enabled and rule.on == "caption"]
    return "\n".join(_clean_line(line, chosen) for line in text.splitlines())


def _clean_line(line: str, rules: Sequence[Rule]) -> str:
    for rule in rules:
        line = _expression(rule.pattern).sub(rule.with_, line)
    line = re.sub(r"\s+", " ", line)
    return re.sub(r"\s+([,.;:!?])", r"\1", line).strip(" ,;")


def clean_tags(text: str, rules: Iterable[Rule], separator: str = ",") -> str:
    """A list of tags after the rules that are on, each tag once; lines stay lines."""
    chosen = [rule for rule in rules if rule.enabled and rule.on == "tags"]
    return "\n".join(_clean_tags(line, chosen, separator) for line in text.splitlines())


def _clean_tags(line: str, rules: Sequence[Rule], separator: str) -> str:
    first: dict[str, str] = {}
    for tag in split_tags(line, separator):
        first.setdefault(_plain(tag), tag)
    tags = list(first.values())
    for rule in rules:
        unwanted = _found(tags, rule)
        tags = [tag for tag in tags if tag not in unwanted]
    return join_tags(tags, separator)


def _found(tags: Sequence[str], rule: Rule) -> set[str]:
    """The tags that a rule drops."""
    if rule.when and not any(_fits(rule.when, tag) for tag in tags):
        return set()
    found = {tag for tag in tags if _fits(rule.pattern, tag)}
    return found if rule.kind == "drop" or len(found) > 1 else set()


def _fits(pattern: str, tag: str) -> bool:
    return _expression(pattern).fullmatch(_plain(tag)) is not None


def _plain(tag: str) -> str:
    return tag.replace("_", " ").casefold()


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    return compile_regex(pattern)


def looks_like_tags(text: str, separator: str = ",") -> bool:
    """Whether a caption file holds tags rather than sentences: short parts between separators."""
    parts = split_tags(" ".join(text.splitlines()), separator)
    return len(parts) > 1 and sum(len(part.split()) for part in parts) / len(parts) <= 3


def clean_text(text: str, rules: Sequence[Rule], separator: str = ",") -> str:
    """The text of a caption file, as tags or as a caption, whichever it looks like."""
    if looks_like_tags(text, separator):
        return clean_tags(text, rules, separator)
    return clean_caption(text, rules)


def clean_entries(
    entries: Mapping[str, Mapping[str, Any]], rules: Sequence[Rule]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str, str, str]]]:
    """Entries of a metadata file after the rules, and what changed: (picture, field, before, after)."""
    found: dict[str, dict[str, Any]] = {}
    changes: list[tuple[str, str, str, str]] = []
    for key, entry in entries.items():
        found[key] = dict(entry)
        for which, clean in (("caption", clean_caption), ("tags", clean_tags)):
            before = entry.get(which)
            if isinstance(before, str) and (after := clean(before, rules)) != before:
                found[key][which] = after
                changes.append((key, which, before, after))
    return found, changes
