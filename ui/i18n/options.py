"""Labels, help and units of the options in other languages.

English stands in the declarations. ``options.<language>.json`` has the same texts by key:
``option.<key>.label``, ``.help`` and ``.choice.<value>``, ``group.<section>.title`` and ``.help``,
``unit.<unit>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from backend.settings import schema
from ui.i18n.language import DEFAULT

_PARTS = ("label", "help")


@cache
def english() -> Mapping[str, str]:
    """Every text of the settings schema by key."""
    found: dict[str, str] = {}
    for group in schema()["groups"]:
        found |= {f"group.{group['id']}.title": group["title"], f"group.{group['id']}.help": group["help"]}
        for option in group["options"]:
            found |= {f"option.{option['key']}.{part}": option[part] for part in _PARTS}
            found |= {f"unit.{option['unit']}": option["unit"]} if option.get("unit") else {}
            found |= dict(_choices(option))
    return found


@cache
def option_texts(language: str) -> Mapping[str, str]:
    """The texts of :func:`english` in a language, filled up from English."""
    path = Path(__file__).parent / f"options.{language}.json"
    own: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {**english(), **own}


def translated_groups(groups: Iterable[Mapping[str, Any]], language: str) -> list[dict[str, Any]]:
    """The groups of the schema with their texts in a language.

    Options keep their English label as ``english``, so that a search finds them by either name.
    """
    if language == DEFAULT:
        return [dict(group) for group in groups]
    return [_group(group, option_texts(language)) for group in groups]


def _group(group: Mapping[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    place = f"group.{group['id']}"
    options = [_option(option, found) for option in group["options"]]
    return {**group, "title": found[f"{place}.title"], "help": found[f"{place}.help"], "options": options}


def _option(option: Mapping[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    place = f"option.{option['key']}"
    own: dict[str, Any] = {part: found[f"{place}.{part}"] for part in _PARTS}
    if option.get("unit"):
        own["unit"] = found[f"unit.{option['unit']}"]
    if option.get("choice_titles"):
        own["choice_titles"] = [found[key] for key, _ in _choices(option)]
    return {**option, **own, "english": option["label"]}


def _choices(option: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, title) of every choice that is shown with a title instead of its value."""
    pairs = zip(option.get("choices", ()), option.get("choice_titles", ()), strict=False)
    return [(f"option.{option['key']}.choice.{choice}", title) for choice, title in pairs]
