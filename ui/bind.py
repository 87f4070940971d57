"""Fields of a form <-> settings, by key and never by position.

A form gives ``{key: value}`` of what differs from the defaults, in the words JSON has: lists of
texts are one line as in a shell, sizes are ``"512"`` or ``"512,768"``, an empty field is None.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

from backend.settings import Settings, declarations
from backend.settings.command import to_command_line
from backend.settings.declare import Declared
from backend.settings.methods import tool_of
from backend.settings.settings import DEFAULTS, Reading, read_values

Values = dict[str, Any]


def read(values: Mapping[str, Any]) -> Reading:
    """Settings as far as the form's values can be read, and every problem with the rest.

    Lets the page go on showing what it can while one field is wrong.
    """
    return read_values(_prepared(values))


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings with these values over the defaults.

    Raises:
        InputError: a key is unknown or a value cannot be what its option takes; all of them at once.
    """
    return Settings.from_flat(_prepared(values))


def _prepared(values: Mapping[str, Any]) -> Values:
    """Without empty fields, and with ``~`` as this machine means it."""
    found = {key: value for key, value in values.items() if value is not None}
    for key, value in found.items():
        option = declarations().get(key)
        if option and option.info.path and isinstance(value, str) and value.strip().startswith("~"):
            found[key] = os.path.expanduser(value.strip())  # noqa: PTH111 - pathlib raises for unknown users
    return found


def wire(option: Declared, value: Any) -> Any:
    """One value as a form shows it: what a person would type, or None for an empty field."""
    if value is None:
        return None
    if option.kind == "textlist" and isinstance(value, (list, tuple)):
        return shlex.join(value)
    if option.kind == "resolution":
        sides = str(value).strip("()[]").replace(" ", "").split(",")
        return sides[0] if len(set(sides)) == 1 else ",".join(sides)
    return value


def wire_values(values: Mapping[str, Any]) -> Values:
    """Values by key as a form shows them; keys that are no options are left out."""
    known = declarations()
    return {key: wire(known[key], value) for key, value in values.items() if key in known}


def own_keys() -> list[str]:
    """Options that belong to one person's work, which loading a preset leaves alone."""
    return [
        key
        for key, option in declarations().items()
        if option.info.per_run or option.info.path or option.info.secret or option.info.multiline
    ]


def command_line(settings: Settings, family: str | None = None) -> str:
    """The command that trains with these settings from a terminal in Atelier's folder.

    ``family``: that of the base model, where it is known.
    """
    script = tool_of(settings.model.training_method, family or "")
    plain = settings.replace(training_method=DEFAULTS["training_method"])
    return " ".join(["python", f"tools/{script}", *to_command_line(plain)])
