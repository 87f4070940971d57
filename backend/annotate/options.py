"""From a section of options to its command line, its form and its values."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from backend.errors import InputError, Problem
from backend.settings.declare import Declared, declared_in, nearest
from backend.settings.option import Section
from backend.settings.schema import option_schema

S = TypeVar("S", bound=Section)
_TYPES = {"int": int, "float": float}


def add_arguments(
    parser: argparse.ArgumentParser, section: type[Section], leave_out: Collection[str] = ()
) -> None:
    """``--key`` for each option of ``section``; what is not given is not in the result."""
    for key, option in declared_in("", section).items():
        if key in leave_out:
            continue
        shown = option.info.help.replace("%", "%%")
        if option.kind == "bool":
            parser.add_argument(f"--{key}", action="store_true", default=argparse.SUPPRESS, help=shown)
            continue
        default = "" if option.default in (None, "") else f" [{option.default}]".replace("%", "%%")
        parser.add_argument(
            f"--{key}",
            type=_TYPES.get(option.kind, str),
            choices=option.choices or None,
            default=argparse.SUPPRESS,
            help=shown + default,
        )


def form(section: type[Section]) -> list[dict[str, Any]]:
    """The options as plain data, for a page (see ``backend.settings.schema``)."""
    return [option_schema(option, option.default) for option in declared_in("", section).values()]


def read(section: type[S], values: Mapping[str, Any]) -> S:
    """Settings out of plain values; None stands for the default.

    Raises:
        InputError: unknown keys and wrong values, all of them at once.
    """
    known = declared_in("", section)
    problems = [_unknown(key, known) for key in values if key not in known]
    given = {key: value for key, value in values.items() if key in known and value is not None}
    try:
        found = section.model_validate(given)
    except ValidationError as error:
        problems += [_wrong(known[str(fault["loc"][0])], fault) for fault in error.errors()]
        raise InputError(problems) from None
    if problems:
        raise InputError(problems)
    return found


def command(tool: str, section: type[Section], values: Mapping[str, Any], positional: Collection[str]) -> str:
    """The command line that does the same as a form with ``values``."""
    known = declared_in("", section)
    words = ["python", f"tools/{tool}", *(str(values.get(key) or key.upper()) for key in positional)]
    for key, value in values.items():
        if key in positional or key not in known or value in (None, known[key].default):
            continue
        words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return shlex.join(words)


def _unknown(key: str, known: Mapping[str, Declared]) -> Problem:
    near = nearest(key, known)
    return Problem(f"unknown key {key}", next=f"Did you mean {near}?" if near else "", key=key)


def _wrong(option: Declared, fault: Any) -> Problem:
    allowed = option.bounds.text() or ", ".join(map(str, option.choices))
    return Problem(
        f"{option.key}: {fault['input']!r} cannot be used",
        why=f"allowed: {allowed}" if allowed else str(fault["msg"]),
        key=option.key,
    )
