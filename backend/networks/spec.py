"""Network arguments given as ``key=value`` text, read into values."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import InputError, Problem
from backend.networks.base import NetworkSpec


@dataclass(frozen=True)
class Reader:
    """How one argument's text becomes a value."""

    read: Callable[[str], Any]
    expected: str
    """What the text may be, in words."""
    neutral: Any = None
    """The value that asks for nothing: it is read as "not given"."""
    has_none: bool = False
    """The word "none" is a value, not "not given"."""


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise ValueError(text)
    return number


def _rank(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError(text)
    return number


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError(text)
    return word in ("true", "1", "yes", "on")


def _words(text: str) -> str:
    return text.strip()


SHARE = Reader(_share, "a share from 0 to below 1")
RANK = Reader(_rank, "a whole number from 1")
NUMBER = Reader(_finite, "a number from 0")
WHOLE = Reader(int, "a whole number")
FLAG = Reader(_flag, "True or False", neutral=False)
ON = Reader(_flag, "True or False", neutral=True)
WORDS = Reader(_words, "a word or a list")

_FIELDS: dict[str, Reader] = {
    "conv_dim": RANK,
    "conv_alpha": NUMBER,
    "dropout": SHARE,
    "rank_dropout": SHARE,
    "module_dropout": SHARE,
}


def read_arguments(
    module: str, spec: NetworkSpec, own: Mapping[str, Reader], fields: tuple[str, ...] = tuple(_FIELDS)
) -> tuple[NetworkSpec, dict[str, Any]]:
    """``spec`` with the arguments that are fields of it read into them, and the kind's ``own``.

    ``fields``: those of conv_dim, conv_alpha, dropout, rank_dropout and module_dropout that the
    kind can use; the others are refused when they are set, here or in the spec. A field that is set
    already wins. "None" and the empty text mean "not given".

    Raises:
        InputError: unknown arguments, or values that cannot be read; all of them at once.
    """
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    for name, text in spec.args.items():
        reader = own.get(name) or (_FIELDS.get(name) if name in fields else None)
        if text.strip().lower() in ("", "none") and not (text.strip() and reader and reader.has_none):
            continue
        if reader is None and not (name in _FIELDS and _is_zero(text)):
            problems.append(_unknown(module, name, [*fields, *own]))
        elif reader is not None:
            try:
                found[name] = reader.read(text)
            except ValueError:
                problems.append(_unreadable(name, text, reader))
    problems += [_unfit(module, name) for name in _FIELDS if name not in fields and getattr(spec, name)]
    if problems:
        raise InputError(problems)
    given = {name: value for name, value in found.items() if name in _FIELDS and getattr(spec, name) is None}
    values = {name: value for name, value in found.items() if name in own and value != own[name].neutral}
    return replace(spec, args={}, **given), values


def refuse(what: str, why: str = "", next: str = "") -> InputError:
    """The error of arguments that make no sense together."""
    return InputError(Problem(what, why=why, next=next, key="network_args"))


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False


def _unreadable(name: str, text: str, reader: Reader) -> Problem:
    return Problem(f"network argument {name}: expected {reader.expected}, got '{text}'", key="network_args")


def _unfit(module: str, name: str) -> Problem:
    key = "network_dropout" if name == "dropout" else name
    return Problem(f"{module} has no use for {key}", next=f"leave out {key}", key=key)


def _unknown(module: str, name: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(name, known, 1)
    return Problem(
        f"{module} does not know the network argument {name}",
        next=f"did you mean {near[0]}?" if near else f"it knows: {', '.join(sorted(known))}",
        key="network_args",
    )
