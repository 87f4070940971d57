"""Conditions over settings as plain data, so that trainer and form judge by the same ones.

A condition is one of
    (key, op)           op: "set", "unset"
    (key, op, value)    op: "=", "!=", "<", "<=", ">", ">=", "not multiple of", "has any of", "contains"
    ("all", c, ...), ("any", c, ...), ("not", c)
"unset" is None, False, an empty text or an empty list; 0 is set. A comparison with a value that is
unset is false. ``key`` may name an item of a key=value list: ``optimizer_args.relative_step``.
A value may be a tuple that stands for another option: ``("key", name)`` its value,
``("shorter side", name)`` and ``("longer side", name)`` those of a size.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Condition = tuple[Any, ...]
Values = Mapping[str, Any]

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "not multiple of": lambda value, step: value % step != 0,
    "has any of": lambda text, letters: any(letter in text for letter in letters),
    "contains": lambda text, part: part in text.lower(),
}

TEXT_ARGUMENTS = frozenset(
    ("step_rules", "warmup_type", "decay_type", "anneal_strategy", "mode", "scale_mode", "threshold_mode")
)
"""Items of key=value lists that are texts and may stand without quotation marks."""

_PICK: Mapping[str, Callable[[Any], Any]] = {
    "key": lambda value: value,
    "shorter side": lambda value: min(sides(value)),
    "longer side": lambda value: max(sides(value)),
}


def holds(condition: Condition, values: Values) -> bool:
    """Whether a condition is true of flat settings."""
    head, *rest = condition
    if head == "all":
        return all(holds(part, values) for part in rest)
    if head == "any":
        return any(holds(part, values) for part in rest)
    if head == "not":
        return not holds(rest[0], values)
    value, op = value_of(head, values), rest[0]
    if op in ("set", "unset"):
        return is_set(value) == (op == "set")
    other = rest[1]
    if isinstance(other, tuple):
        pick, name = other
        found = value_of(name, values)
        other = None if found is None else _PICK[pick](found)
    return value is not None and other is not None and bool(_COMPARE[op](value, other))


def is_set(value: Any) -> bool:
    """False for None, False, an empty text and an empty list."""
    return value is not None and value is not False and value != "" and value != [] and value != ()


def value_of(key: str, values: Values) -> Any:
    """An option's value, or an item's value for ``list.name``; None when there is none."""
    name, dot, item = key.partition(".")
    return literals(values[name]).get(item) if dot else values[name]


def sides(size: str) -> tuple[int, int]:
    """(width, height) of a size written as '512,768'."""
    width, height = size.split(",")
    return int(width), int(height)


def literals(items: Iterable[str]) -> dict[str, Any]:
    """``["betas=.9,.999"]`` -> ``{"betas": (0.9, 0.999)}``; items that cannot be read are left out.

    Only ``TEXT_ARGUMENTS`` may be texts without quotation marks.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, _, text = item.partition("=")
        try:
            found[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            if name.strip() in TEXT_ARGUMENTS:
                found[name.strip()] = text.strip()
    return found


def keys_of(condition: Condition) -> set[str]:
    """All options that a condition looks at."""
    head, *rest = condition
    if head in ("all", "any", "not"):
        return set().union(*(keys_of(part) for part in rest))
    other = {rest[1][1]} if len(rest) > 1 and isinstance(rest[1], tuple) else set[str]()
    return {head.partition(".")[0]} | other
