"""The lines a generation worker reads, checked, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from backend.errors import InputError, Problem
from backend.generate.request import EMPHASIS_MODES, HIRES_MODES, MAX_SIDE, MAX_STEPS, MIN_SIDE, Request

MAX_COUNT = 1000
MAX_BATCH = 64
ENCODERS = ("clip_l", "clip_g", "t5xxl")


@dataclass(frozen=True)
class Order:
    """One ``generate`` line: what to draw, with which files, and where pictures go."""

    model: Path
    encoders: Mapping[str, Path]
    """Own files of text encoders, for models that come without them: ``clip_l``, ``clip_g``, ``t5xxl``."""
    request: Request
    out: Path
    preview: bool
    """Show the picture while it is drawn."""
    first: int = 0
    """Pictures of the request that there are already; those after them are drawn."""


@dataclass(frozen=True)
class _Rule:
    """What a value must be."""

    kind: Literal["text", "number", "whole", "flag"]
    low: float = -math.inf
    high: float = math.inf
    empty: bool = False
    """None is a value too."""
    choices: tuple[str, ...] = ()


_TEXT, _ANY = _Rule("text"), _Rule("number")
_SHARE = _Rule("number", 0, 1)
_SEED = _Rule("whole", -math.inf, 2**63 - 1, empty=True)
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(
        ("prompt", "negative", "sampler", "lora_folder", "embeddings", "vae", "image", "mask"), _TEXT
    ),
    **dict.fromkeys(("width", "height", "max_token_length"), _Rule("whole", 0, empty=True)),
    **dict.fromkeys(("seed", "variation_seed"), _SEED),
    **dict.fromkeys(("strength", "variation_strength"), _SHARE),
    "steps": _Rule("whole"),
    "scale": _ANY,
    "negative_scale": _Rule("number", empty=True),
    "count": _Rule("whole", 1, MAX_COUNT),
    "batch": _Rule("whole", 1, MAX_BATCH),
    "clip_skip": _Rule("whole", 1, 12, empty=True),
    "emb_normalize_mode": _Rule("text", choices=EMPHASIS_MODES),
    "zero_terminal_snr": _Rule("flag"),
    "vae_tile": _Rule("whole", MIN_SIDE, MAX_SIDE, empty=True),
}
_SIDE = _Rule("whole", 1, empty=True)
_FIRST = _Rule("whole", 0)
_NESTED: Mapping[str, Mapping[str, _Rule]] = {
    "loras": {"path": _TEXT, "strength": _ANY, "text_strength": _Rule("number", empty=True)},
    "guides": {"path": _TEXT, "image": _TEXT, "strength": _ANY, "ratio": _SHARE},
    "hires": {
        "scale": _Rule("number", 1, 8),
        "mode": _Rule("text", choices=HIRES_MODES),
        "steps": _Rule("whole", 1, MAX_STEPS, empty=True),
        "strength": _SHARE,
        "width": _SIDE,
        "height": _SIDE,
        "save_first": _Rule("flag"),
    },
    "stated": {
        **dict.fromkeys(("width", "height", "width_negative", "height_negative"), _SIDE),
        **dict.fromkeys(("top", "left"), _Rule("whole", 0)),
    },
}
_LISTS = ("loras", "guides")
_NEEDED = {"loras": ("path",), "guides": ("path", "image")}


def order_of(data: Mapping[str, Any]) -> Order:
    """The order in a line. Raises InputError with every problem found."""
    problems: list[Problem] = []
    if not _text(data.get("model")):
        problems.append(Problem("no base model was chosen", next="Choose a model file.", key="model"))
    if not _text(data.get("out")):
        problems.append(Problem("no folder for the pictures was given", key="out"))
    wanted = data.get("request") or {}
    problems += request_problems(wanted) if isinstance(wanted, Mapping) else []
    first = data.get("first") or 0
    problems += _problems("first", _FIRST, first)
    if problems:
        raise InputError(problems)
    return Order(
        model=Path(data["model"]),
        encoders={key: Path(data[key]) for key in ENCODERS if _text(data.get(key))},
        request=request_of(wanted),
        out=Path(data["out"]),
        preview=bool(data.get("preview")),
        first=int(first),
    )


def request_of(data: Mapping[str, Any]) -> Request:
    """A request from JSON, with whole numbers that JSON may write as ``64.0``.

    Raises:
        InputError: every problem of :func:`request_problems`.
    """
    if problems := list(request_problems(data)):
        raise InputError(problems)
    values = {key: _value(_RULES.get(key), value) for key, value in data.items()}
    for key, rules in _NESTED.items():
        if isinstance(values.get(key), Mapping):
            values[key] = {name: _value(rules[name], value) for name, value in values[key].items()}
    return Request.from_dict(values)


def request_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the values of a request; a value inside a table is named ``hires_scale``."""
    for key, value in data.items():
        if key in _RULES:
            yield from _problems(key, _RULES[key], value)
        elif key in _LISTS:
            yield from _list_problems(key, value)
        elif key in _NESTED:
            yield from [] if value is None else _table_problems(key, value)
        else:
            yield Problem(f"'{key}' is not a setting of pictures", key=str(key))


def _list_problems(key: str, items: Any) -> Iterator[Problem]:
    if not isinstance(items, list | tuple):
        yield Problem(f"{key} must be a list", key=key)
        return
    for item in items:
        for problem in _table_problems(key, item):
            yield Problem(problem.what, key=key)


def _table_problems(key: str, table: Any) -> Iterator[Problem]:
    rules = _NESTED[key]
    if not isinstance(table, Mapping):
        yield Problem(f"{key} must be a table", key=key)
        return
    for name in _NEEDED.get(key, ()):
        if not _text(table.get(name)):
            yield Problem(f"{key}: {name} is missing", key=key)
    for name, value in table.items():
        if name not in rules:
            yield Problem(f"'{name}' is not a setting of {key}", key=key)
        else:
            yield from _problems(f"{key}_{name}", rules[name], value)


def _problems(key: str, rule: _Rule, value: Any) -> Iterator[Problem]:
    """What is wrong with one value, if anything."""
    if value is None and rule.empty:
        return
    if rule.kind == "flag":
        if not isinstance(value, bool):
            yield Problem(f"{key} must be true or false, not {value!r}", key=key)
    elif rule.kind == "text":
        if not isinstance(value, str):
            yield Problem(f"{key} must be text, not {value!r}", key=key)
        elif rule.choices and value not in rule.choices:
            yield Problem(f"{key} must be {' or '.join(rule.choices)}, not '{value}'", key=key)
    elif not _is_number(value) or (rule.kind == "whole" and value != int(value)):
        yield Problem(f"{key} must be a {'whole ' * (rule.kind == 'whole')}number, not {value!r}", key=key)
    elif not rule.low <= value <= rule.high:
        yield Problem(f"{key} must be {_range(rule)}, not {value}", key=key)


def _range(rule: _Rule) -> str:
    if rule.low == -math.inf:
        return f"at most {rule.high:g}"
    return f"at least {rule.low:g}" if rule.high == math.inf else f"from {rule.low:g} to {rule.high:g}"


def _value(rule: _Rule | None, value: Any) -> Any:
    return int(value) if rule and rule.kind == "whole" and value is not None else value


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
