"""Captions one by one and in bulk, undo and redo, for the page."""

from __future__ import annotations

from typing import Any

from backend.data.edit import OPERATIONS, Applied, Preview
from backend.errors import InputError
from ui.calls import problem_dicts
from ui.i18n import said, t
from ui.tabs.dataset.opened import Opened
from ui.tabs.dataset.shelf import Shelf

SHOWN = 100
"""Changes of a preview that are sent to the page."""


def operations() -> list[dict[str, Any]]:
    """What can be done in bulk, as the form shows it."""
    return [
        {
            "name": one.name,
            "title": said(one.title),
            "fields": {key: said(label) for key, label in one.fields.items()},
            "optional": list(one.optional),
        }
        for one in OPERATIONS.values()
    ]


class CaptionCalls:
    """What the server does for captions. Every method takes and gives JSON."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def count_tokens(self, data: dict[str, Any]) -> dict[str, Any]:
        """How long a text is while it is typed."""
        return {"tokens": self.shelf.get(data).tokens(str(data["text"]))}

    def save_caption(self, data: dict[str, Any]) -> dict[str, Any]:
        """Write one caption, unless its file changed since the page read it."""
        opened = self.shelf.get(data)
        opened.picture(data["id"])
        applied = opened.store.edit(data["id"], str(data["text"]), str(data["mark"]))
        if applied.conflicts:
            conflict = applied.conflicts[0]
            return {"conflict": {"text": conflict.theirs, "mark": conflict.version}}
        now = opened.store.get(data["id"])
        return {
            "problems": problem_dicts(applied.failed),
            "mark": now.version,
            "caption_file": now.path.name,
        }

    def preview_bulk(self, data: dict[str, Any]) -> dict[str, Any]:
        """What a change to many captions would do."""
        preview = _preview(self.shelf.get(data), data)
        return {
            "total": len(preview.changes),
            "changes": [change.as_dict() for change in preview.changes[:SHOWN]],
            "versions": {change.id: change.version for change in preview.changes},
        }

    def apply_bulk(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make the change that was previewed. A caption that differs from the preview's is left alone."""
        opened = self.shelf.get(data)
        opened.refresh()
        seen: dict[str, str] = data["versions"]
        preview = _preview(opened, {**data, "ids": list(seen)})
        preview = Preview(
            preview.title,
            tuple(_as_seen(change, seen[change.id]) for change in preview.changes if change.id in seen),
            preview.unchanged,
        )
        applied = opened.store.apply(preview)
        said = [_number("data.applied", len(applied.written))]
        if applied.conflicts:
            said.append(t("data.applied_conflicts", n=f"{len(applied.conflicts):,}"))
        return {
            "problems": problem_dicts(applied.failed),
            "message": " ".join(said),
            "conflicts": [conflict.as_dict() for conflict in applied.conflicts[:SHOWN]],
        }

    def undo(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take the newest edit back."""
        opened = self.shelf.get(data)
        return _moved(opened, opened.store.undo(), "data.undone")

    def redo(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make the edit again that was undone last."""
        opened = self.shelf.get(data)
        return _moved(opened, opened.store.redo(), "data.redone")


def _as_seen(change: Any, version: str) -> Any:
    from dataclasses import replace

    return replace(change, version=version)


def _preview(opened: Opened, data: dict[str, Any]) -> Preview:
    ids = data.get("ids") or opened.wanted(data.get("filter") or {})
    known = [id for id in ids if id in opened.pictures]
    return opened.store.preview(str(data["op"]), data.get("values") or {}, ids=known)


def _moved(opened: Opened, applied: Applied | None, key: str) -> dict[str, Any]:
    if applied is None:
        raise InputError(t("data.nothing_to_undo"))
    title = applied.title.partition(": ")[2]
    message = t(key, title=said(title))
    if applied.conflicts:
        message += " " + t("data.history_conflict", n=f"{len(applied.conflicts):,}")
    return {
        "problems": problem_dicts(applied.failed),
        "message": message,
        "history": opened.history(),
    }


def _number(key: str, n: int) -> str:
    return t(f"{key}_one" if n == 1 else f"{key}_n", n=f"{n:,}")
