"""From what people write to an option's value, and back.

The same reading serves TOML, command line and form: numbers may be written as text, whole numbers
where fractions are meant, and lists where sd-scripts takes several values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from backend.settings.declare import Declared, Kind
from backend.settings.types import read_resolution, read_steps, read_text_list


def convert(declared: Declared, value: Any) -> Any:
    """The option's value out of a written one.

    Raises:
        ValueError: what was expected and what was found, for people, without the option's name.
    """
    if isinstance(value, str):
        value = _trimmed(declared, value)
    if isinstance(value, (list, tuple)) and declared.info.several:
        value = _one_of(value)
    if value is None or (value == "" and (declared.optional or declared.kind != "text")):
        return _empty(declared)
    found = _read(declared, value)
    if isinstance(found, (int, float)) and found not in declared.bounds:
        raise ValueError(f"{found} is out of range; allowed: {declared.bounds.text()}")
    return found


def plain(declared: Declared, value: Any) -> Any:
    """A value as it is written to TOML and JSON: None, bool, number, text or list of texts."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if declared.kind == "resolution" else list(value)
    return value


def describe(value: Any) -> str:
    """What a wrong value is, in words: 'text (many)', '1.5', 'a list'."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"the whole number {value}"
    if isinstance(value, str):
        return f"text ('{value if len(value) <= 40 else value[:37] + '...'}')"
    if isinstance(value, float):
        return str(value)
    names = {list: "a list", tuple: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")


def _read(declared: Declared, value: Any) -> Any:
    if declared.info.check is not None:
        return declared.info.check(value)
    if declared.kind in _READERS:
        return _READERS[declared.kind](declared, value)
    try:
        return _READ_BY_TYPE[declared.kind](value)
    except ValueError as error:
        raise ValueError(f"{error}, got {describe(value)}") from None


def _empty(declared: Declared) -> Any:
    """None where it is allowed; an empty text, choice or list means the default, as in sd-scripts."""
    if declared.optional:
        return None
    if declared.kind in ("text", "choice", "textlist"):
        return declared.default
    raise ValueError(f"expected {_WANTED[declared.kind]}, got nothing")


def _one_of(values: list[Any] | tuple[Any, ...]) -> Any:
    if len(set(map(str, values))) > 1:
        raise ValueError(f"expected one value for the one text encoder, got {len(values)} different ones")
    return values[0] if values else None


def _bool(declared: Declared, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if not isinstance(value, bool):
        raise _wrong(declared, value)
    return value


def _float(declared: Declared, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _wrong(declared, value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _wrong(declared, value) from None
    if not math.isfinite(number):
        allowed = declared.bounds.text()
        raise ValueError(f"{number} is no usable number" + (f"; allowed: {allowed}" if allowed else ""))
    return number


def _int(declared: Declared, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _float(declared, value)
    if number != int(number):
        raise _wrong(declared, value)
    return int(value) if isinstance(value, str) and value.lstrip("+-").isdecimal() else int(number)


def _text(declared: Declared, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(declared, value)
    if "\0" in value:
        raise ValueError("expected text, got text with a zero byte in it")
    return value


def _choice(declared: Declared, value: Any) -> str | int:
    for choice in declared.choices:
        if not isinstance(value, bool) and str(choice).lower() == str(value).lower():
            return choice
    raise ValueError(f"{describe(value)} is not one of: {', '.join(map(str, declared.choices))}")


def _trimmed(declared: Declared, text: str) -> str:
    """Without outer blanks, but for free text, and a path without the quotation marks it was copied with."""
    if declared.kind == "text" and not (declared.info.path or declared.info.per_run):
        return text
    text = text.strip()
    if declared.info.path and len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def _wrong(declared: Declared, value: Any) -> ValueError:
    return ValueError(f"expected {_WANTED[declared.kind]}, got {describe(value)}")


_WORDS = {"true": True, "false": False}

_WANTED: Mapping[Kind, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "choice": "one of the choices",
    "textlist": "a list of texts",
    "resolution": "a size",
    "steps": "a number of steps",
}

_READERS: Mapping[Kind, Callable[[Declared, Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "text": _text,
    "choice": _choice,
}

_READ_BY_TYPE: Mapping[Kind, Callable[[Any], Any]] = {
    "textlist": read_text_list,
    "resolution": read_resolution,
    "steps": read_steps,
}
