"""A tagger's table of tags: which output stands for which tag, and of what category.

``selected_tags.csv`` is the table of the WD14 taggers (tag_id, name, category, count; the categories are
Danbooru's numbers). ``tag_mapping.json`` is that of cl_tagger, which also knows quality and model tags.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from backend.errors import InputError

TABLES = ("selected_tags.csv", "tag_mapping.json")
_CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}


@dataclass(frozen=True)
class TagTable:
    """Tags in the order of a model's outputs."""

    names: tuple[str, ...]
    """'' for an output that stands for nothing."""
    categories: tuple[str, ...]
    normalized: bool = False
    """The model wants values from -1 to 1 and gives logits (cl_tagger); else 0 to 255 and probabilities."""


def read_table(path: Path) -> TagTable:
    """Raises InputError naming the line that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read", where=str(path), why=str(error)) from None
    return _from_json(path, text) if path.suffix.lower() == ".json" else _from_csv(path, text)


def _from_csv(path: Path, text: str) -> TagTable:
    rows = csv.DictReader(text.splitlines())
    names: list[str] = []
    categories: list[str] = []
    for number, row in enumerate(rows, 2):
        if not row.get("name") or row.get("category") is None:
            raise InputError(
                f"{path.name} line {number}: name or category is missing",
                where=str(path),
                next="download the tagger again: its table is damaged",
            )
        names.append(row["name"])
        categories.append(_CATEGORIES.get(row["category"], "general"))
    if not names:
        raise InputError(f"{path.name} has no tags", where=str(path))
    return TagTable(tuple(names), tuple(categories))


def _from_json(path: Path, text: str) -> TagTable:
    try:
        places = _places(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path.name} is no table of tags", where=str(path), why=repr(error)) from None
    size = max(places) + 1
    names, categories = [""] * size, ["general"] * size
    for place, (name, category) in places.items():
        names[place], categories[place] = name, category.lower()
    return TagTable(tuple(names), tuple(categories), normalized=True)


def _places(data: Any) -> dict[int, tuple[str, str]]:
    """Output -> (tag, category) of both layouts that the file comes in."""
    table = cast("Mapping[str, Any]", data)
    if "idx_to_tag" in table:
        return {
            int(k): (str(tag), str(table["tag_to_category"][tag])) for k, tag in table["idx_to_tag"].items()
        }
    return {int(k): (str(entry["tag"]), str(entry["category"])) for k, entry in table.items()}
