"""Presets as the page shows them: a list with ids, the bundled ones by family, then the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from backend.errors import InputError
from backend.settings import (
    Preset,
    Settings,
    delete_preset,
    list_presets,
    rename_preset,
    restore_preset,
    save_preset,
)
from backend.settings.presets import BUNDLED
from backend.system.identify import FAMILY_FACTS, FamilyName
from ui.bind import Values, wire_values
from ui.i18n import said, t

_START = "sd15/character"
"""What a form that was never filled in begins with."""


class PresetShelf:
    """The bundled presets and one folder of the user's own."""

    def __init__(self, own: Path, bundled: Path = BUNDLED) -> None:
        self.own = own
        self.bundled = bundled

    def listing(self) -> list[dict[str, Any]]:
        """Every preset with id, group, title and when to use it; broken ones say why."""
        return [
            {
                "id": self._id(preset),
                "group": t("train.own_presets") if preset.own else _line(preset.family),
                "title": preset.title if preset.own else said(preset.title),
                "about": said(preset.problems[0].text() if preset.problems else preset.description),
                "broken": bool(preset.problems),
                "own": preset.own,
                "family": preset.family,
                "line": _line(preset.family),
                "description": preset.description,
            }
            for preset in self._all()
        ]

    def first(self) -> tuple[Values, str]:
        """Values and id of the preset that a new form begins with; nothing if there is none."""
        try:
            return self.read(_START), _START
        except InputError:
            return {}, ""

    def read(self, id: str) -> Values:
        """A preset's values, as a form shows them.

        Raises:
            InputError: there is no such preset, or it cannot be used.
        """
        preset = self._find(id)
        if preset.problems:
            raise InputError(preset.problems)
        return wire_values(preset.values)

    def text(self, id: str) -> tuple[str, str]:
        """A preset's file: its name and content.

        Raises:
            InputError: there is no such preset.
        """
        path = self._find(id).path
        return path.name, path.read_text(encoding="utf-8", errors="replace")

    def rename(self, id: str, title: str, description: str) -> str:
        """Give a preset of the user's own another title and description. Returns its new id.

        Raises:
            InputError: it comes with Atelier, or the title is empty or taken.
        """
        return f"own/{rename_preset(self._own(id).path, title, description).stem}"

    def delete(self, id: str) -> str:
        """Move a preset of the user's own to the trash. Returns its name there, for :meth:`restore`.

        Raises:
            InputError: it comes with Atelier, or there is none.
        """
        return delete_preset(self._own(id).path).name

    def restore(self, name: str) -> str:
        """Take a preset out of the trash again. Returns its id.

        Raises:
            InputError: it is not there, or its place is taken.
        """
        return f"own/{restore_preset(self.own / '.trash' / Path(name).name).stem}"

    def save(
        self, title: str, description: str, settings: Settings, family: str = "", replace: bool = False
    ) -> str:
        """Keep settings as a preset of the user's own. Returns its id.

        Raises:
            InputError: the title is empty, or taken and ``replace`` is off.
        """
        method = settings.model.training_method
        path = save_preset(self.own, title, settings, description, family, method, replace)
        return f"own/{path.stem}"

    def has(self, title: str) -> bool:
        """Whether the user has a preset of that title."""
        wanted = " ".join(title.split()).lower()
        return any(preset.own and preset.title.lower() == wanted for preset in self._all())

    def _find(self, id: str) -> Preset:
        found = next((preset for preset in self._all() if self._id(preset) == id), None)
        if found is None:
            raise InputError(t("train.no_such_preset", name=id))
        return found

    def _own(self, id: str) -> Preset:
        found = self._find(id)
        if not found.own:
            raise InputError(t("train.preset_bundled", name=found.title))
        return found

    def _all(self) -> list[Preset]:
        return list_presets(self.own, self.bundled)

    def _id(self, preset: Preset) -> str:
        return f"{'own' if preset.own else preset.path.parent.name}/{preset.path.stem}"


def _line(family: str) -> str:
    facts = FAMILY_FACTS.get(cast(FamilyName, family))
    return facts.line if facts else family or t("train.any_family")
