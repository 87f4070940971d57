"""Presets as the page shows them: a list with ids, the bundled ones by family, then the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from backend.errors import InputError
from backend.settings import Preset, Settings, list_presets, save_preset
from backend.settings.presets import BUNDLED
from backend.system.identify import FAMILY_FACTS, FamilyName
from ui.bind import Values, wire_values
from ui.i18n import t

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
                "title": preset.title,
                "about": preset.problems[0].text() if preset.problems else preset.description,
                "broken": bool(preset.problems),
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
        for preset in self._all():
            if self._id(preset) == id:
                if preset.problems:
                    raise InputError(preset.problems)
                return wire_values(preset.values)
        raise InputError(t("train.no_such_preset", name=id))

    def save(
        self, title: str, description: str, settings: Settings, family: str = "", replace: bool = False
    ) -> str:
        """Keep settings as a preset of the user's own. Returns its id.

        Raises:
            InputError: the title is empty, or taken and ``replace`` is off.
        """
        path = save_preset(self.own, title, settings, description, family, replace=replace)
        return f"own/{path.stem}"

    def has(self, title: str) -> bool:
        """Whether the user has a preset of that title."""
        wanted = " ".join(title.split()).lower()
        return any(preset.own and preset.title.lower() == wanted for preset in self._all())

    def _all(self) -> list[Preset]:
        return list_presets(self.own, self.bundled)

    def _id(self, preset: Preset) -> str:
        return f"{'own' if preset.own else preset.path.parent.name}/{preset.path.stem}"


def _line(family: str) -> str:
    facts = FAMILY_FACTS.get(cast(FamilyName, family))
    return facts.line if facts else family or t("train.any_family")
