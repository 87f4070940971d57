"""Network arguments given as ``key=value`` text, put where they belong in a :class:`NetworkSpec`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from backend.errors import InputError, Problem
from backend.networks.base import NetworkSpec


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


_FIELDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "conv_dim": (_rank, "a whole number from 1"),
    "conv_alpha": (float, "a number"),
    "dropout": (_share, "a share from 0 to below 1"),
    "rank_dropout": (_share, "a share from 0 to below 1"),
    "module_dropout": (_share, "a share from 0 to below 1"),
}


def with_arguments(module: str, spec: NetworkSpec, own: Iterable[str] = ()) -> NetworkSpec:
    """``spec`` with the arguments that are fields of it read into them.

    A field that is set already wins. ``own`` names the further arguments of the kind, which stay
    in ``args`` as text. "None" and the empty text mean "not given".

    Raises:
        InputError: unknown arguments, or values that cannot be read; all of them at once.
    """
    problems: list[Problem] = []
    fields: dict[str, Any] = {}
    rest: dict[str, str] = {}
    own = tuple(own)
    for name, text in spec.args.items():
        if name in own:
            rest[name] = text
        elif name not in _FIELDS:
            problems.append(_unknown(module, name, [*_FIELDS, *own]))
        elif text.strip() not in ("", "None"):
            read, expected = _FIELDS[name]
            try:
                fields[name] = read(text)
            except ValueError:
                problems.append(
                    Problem(f"network argument {name}: expected {expected}, got '{text}'", key="network_args")
                )
    if problems:
        raise InputError(problems)
    fields = {name: value for name, value in fields.items() if getattr(spec, name) is None}
    return replace(spec, args=rest, **fields)


def _unknown(module: str, name: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(name, known, 1)
    return Problem(
        f"{module} does not know the network argument {name}",
        next=f"did you mean {near[0]}?" if near else f"it knows: {', '.join(sorted(known))}",
        key="network_args",
    )
