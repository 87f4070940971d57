"""Half-filled forms and recent values, kept on disk so that a reload or a crash loses nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from backend.wholefile import write_text

RECENT_KEPT = 12


class Drafts:
    """One small JSON file a form. Damaged or missing files count as empty; they are never an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

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

    def _read(self, form: str) -> dict[str, Any]:
        try:
            data = json.loads(self._path(form).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, form: str, data: dict[str, Any]) -> None:
        path = self._path(form)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(data, ensure_ascii=False, indent=1))
