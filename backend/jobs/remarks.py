"""What a person says of a run: tags and a note, in ``remarks.json`` of its folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend.errors import InputError
from backend.jobs.files import read_json, write_json
from backend.jobs.runs import Run

FILE = "remarks.json"
LONGEST_NOTE = 10_000
MOST_TAGS = 20
_LONGEST_TAG = 40


@dataclass(frozen=True)
class Remarks:
    """Tags in the order they were given, and a text."""

    tags: tuple[str, ...] = ()
    note: str = ""


def read_remarks(run: Run) -> Remarks:
    """What was said of a run; a missing or damaged file says nothing."""
    facts = read_json(run.path / FILE) or {}
    tags, note = facts.get("tags"), facts.get("note")
    kept = (tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    return Remarks(_clean(kept), note if isinstance(note, str) else "")


def write_remarks(run: Run, tags: Iterable[str], note: str) -> Remarks:
    """Keep remarks; gives them as they were kept.

    Raises:
        InputError: the note is too long, or there are too many tags.
    """
    kept = Remarks(_clean(tags), note.strip())
    if len(kept.note) > LONGEST_NOTE:
        raise InputError(f"the note has {len(kept.note):,} characters; {LONGEST_NOTE:,} fit", key="note")
    if len(kept.tags) > MOST_TAGS:
        raise InputError(f"{len(kept.tags)} tags; {MOST_TAGS} fit", key="tags")
    write_json(run.path / FILE, {"tags": list(kept.tags), "note": kept.note})
    return kept


def _clean(tags: Iterable[str]) -> tuple[str, ...]:
    """Trimmed, short, each once."""
    return tuple(dict.fromkeys(tag for one in tags if (tag := " ".join(one.split())[:_LONGEST_TAG])))
