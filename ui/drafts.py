"""Half-filled forms and recent values, kept on disk so that a reload or a crash loses nothing.

Beside each file lies the one before it. When a file is damaged that one takes its place, the damaged
one is kept under another name, and whoever opens the form is told.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.jobs.files import read_json
from backend.wholefile import write_text

RECENT_KEPT = 12


@dataclass(frozen=True)
class Recovered:
    """What became of a damaged file."""

    kept: str
    """The name that the damaged file has now."""
    saved: float | None
    """When the values that took its place were saved, Unix seconds; None where there are none."""


class Drafts:
    """One small JSON file a form. Damaged or missing files are never an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._recovered: dict[str, Recovered] = {}

    def recovered(self, form: str) -> Recovered | None:
        """What became of a form's damaged file, told once."""
        self._read(form)
        return self._recovered.pop(form, None)

    def load(self, form: str) -> dict[str, Any] | None:
        """The values a form had, or None when there is no draft."""
        values = self._read(form).get("values")
        return values if isinstance(values, dict) else None

    def save(self, form: str, values: dict[str, Any], **extra: Any) -> None:
        """Keep ``values`` (and ``extra``, such as the chosen preset) of a form."""
        with self._lock:
            stored = self._read(form)
            new = {**stored, **extra, "values": values}
            if new != stored:
                self._write(form, new)

    def get(self, form: str, name: str) -> Any:
        """One extra of a draft, such as the chosen preset, or None."""
        return self._read(form).get(name)

    def recent(self, form: str) -> dict[str, list[str]]:
        """Values used before, newest first, by key."""
        found = self._read(form).get("recent")
        return found if isinstance(found, dict) else {}

    def remember(self, form: str, values: dict[str, str]) -> None:
        """Put values at the front of their key's recent list."""
        with self._lock:
            stored = self._read(form)
            recent = dict(self.recent(form))
            for key, value in values.items():
                older = [item for item in recent.get(key, []) if item != value]
                recent[key] = [value, *older][:RECENT_KEPT]
            self._write(form, {**stored, "recent": recent})

    def _path(self, form: str) -> Path:
        return self.folder / f"{form}.json"

    def _before(self, form: str) -> Path:
        return self.folder / f"{form}.before.json"

    def _read(self, form: str) -> dict[str, Any]:
        path = self._path(form)
        data = read_json(path)
        if data is None and path.is_file():
            return self._recover(form)
        return data or {}

    def _recover(self, form: str) -> dict[str, Any]:
        """Put a damaged file aside and the one before it in its place; gives what that holds."""
        path, before = self._path(form), self._before(form)
        kept = path.with_name(f"{form}.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json")
        data = read_json(before)
        with contextlib.suppress(OSError):
            path.replace(kept)
            saved = None
            if data is not None:
                saved = before.stat().st_mtime
                write_text(path, before.read_text(encoding="utf-8"))
            self._recovered[form] = Recovered(kept.name, saved)
        return data or {}

    def _write(self, form: str, data: dict[str, Any]) -> None:
        path = self._path(form)
        path.parent.mkdir(parents=True, exist_ok=True)
        if read_json(path) is not None:
            write_text(self._before(form), path.read_text(encoding="utf-8"))
        write_text(path, json.dumps(data, ensure_ascii=False, indent=1))
