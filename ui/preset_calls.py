"""What the server does with presets and with settings from elsewhere. Methods take and give JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from backend.settings import to_toml
from backend.settings.imports import Imported, import_metadata, import_text
from backend.settings.secrets import is_secret
from ui.bind import settings_of, wire_values
from ui.calls import Call, problem_dicts
from ui.i18n import said
from ui.presets import PresetShelf


class PresetCalls:
    """Renaming, deleting, writing out and reading in."""

    def __init__(self, presets: PresetShelf) -> None:
        self.presets = presets

    def methods(self) -> tuple[Call, ...]:
        """What the script of the page may call."""
        return (
            self.rename_preset,
            self.delete_preset,
            self.restore_preset,
            self.export_preset,
            self.import_settings,
        )

    def rename_preset(self, data: dict[str, Any]) -> dict[str, Any]:
        """Another title and description for a preset of the user's own."""
        id = self.presets.rename(str(data["id"]), str(data["name"]), str(data.get("about") or ""))
        return {"id": id, "presets": self.presets.listing()}

    def delete_preset(self, data: dict[str, Any]) -> dict[str, Any]:
        """Move a preset of the user's own to the trash; ``trashed`` brings it back."""
        trashed = self.presets.delete(str(data["id"]))
        return {"trashed": trashed, "presets": self.presets.listing()}

    def restore_preset(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take it out of the trash again."""
        id = self.presets.restore(str(data["trashed"]))
        return {"id": id, "presets": self.presets.listing()}

    def export_preset(self, data: dict[str, Any]) -> dict[str, Any]:
        """A preset's file, or without an id the form's settings as one; secrets are in neither."""
        if data.get("id"):
            name, text = self.presets.text(str(data["id"]))
        else:
            name, text = "settings.toml", to_toml(settings_of(data["values"]))
        return {"name": name, "text": text}

    def import_settings(self, data: dict[str, Any]) -> dict[str, Any]:
        """Settings out of a file's ``text`` or ``metadata``, with what became of every key."""
        metadata, name = data.get("metadata"), str(data.get("name") or "")
        if isinstance(metadata, Mapping):
            found = import_metadata({str(key): str(value) for key, value in metadata.items()})  # type: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        else:
            found = import_text(str(data.get("text") or ""), name)
        return {"name": name, **report(found)}


def report(found: Imported) -> dict[str, Any]:
    """An import as the page shows it."""
    entries = [{**asdict(entry), "why": said(entry.why)} for entry in found.entries]
    return {
        "source": found.source,
        "values": wire_values(found.settings.changed()),
        "secret": [key for key in found.settings.changed() if is_secret(key)],
        "counts": Counter(entry.fate for entry in found.entries),
        "entries": entries,
        "still": problem_dicts(found.problems),
    }
