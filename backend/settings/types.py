"""Value types of options that people write in more than one way."""

from __future__ import annotations

import math
import shlex
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer


def read_resolution(value: Any) -> Any:
    """'512', '512,768', 512, [512], [512, 768] -> (width, height)."""
    if value in (None, ""):
        return None
    if isinstance(value, str):
        parts: list[Any] = value.lower().replace("x", ",").split(",")
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        sides = [_side(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        sides = []
    if len(sides) == 1:
        sides *= 2
    if len(sides) != 2:
        raise ValueError("expected one whole number or 'width,height', such as 512 or 512,768")
    if not all(64 <= side <= 16_384 for side in sides):
        raise ValueError("expected sides from 64 to 16384 px")
    return sides[0], sides[1]


def _side(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError
    return int(number)


def read_steps(value: Any) -> Any:
    """'10%' -> 0.1, '0' -> 0, '1.0' -> 1, '0.1' -> 0.1, 100 -> 100."""
    if isinstance(value, bool):
        raise ValueError("expected a number of steps, a share below 1, or a percentage")
    try:
        if isinstance(value, str) and value.strip().endswith("%"):
            number = float(value.strip()[:-1]) / 100
        else:
            number = float(value)
    except (TypeError, ValueError):
        raise ValueError("expected a number of steps, a share below 1, or a percentage") from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    if str(value).strip().endswith("%") and not 0 <= number < 1:
        raise ValueError("expected a percentage from 0% to below 100%")
    if number >= 1 and number != int(number):
        raise ValueError("expected a whole number of steps, or a share below 1")
    return int(number) if number == int(number) else number


def read_text_list(value: Any) -> Any:
    """A string is split as a shell would; lists pass; None is empty."""
    if value is None:
        return ()
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError:
            raise ValueError("expected key=value items with every quotation mark closed") from None
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError('expected a list of texts, such as ["key=value"]')
    return tuple(value)


def read_face_range(value: Any) -> Any:
    """'2,4', [2.0, 4.0] -> '2,4': the two numbers as text."""
    if value in (None, ""):
        return None
    parts: list[Any] = value.split(",") if isinstance(value, str) else list(value)
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError("expected two numbers, such as 2.0,4.0") from None
    if not 1 <= low <= high <= 100:
        raise ValueError("expected two numbers from 1 to 100, the smaller first")
    return f"{low:g},{high:g}"


Resolution = Annotated[
    tuple[int, int] | None,
    BeforeValidator(read_resolution),
    PlainSerializer(lambda v: None if v is None else f"{v[0]},{v[1]}"),
]
"""(width, height) in pixels, or None for the family's own. Written as 'width,height'."""

Steps = Annotated[int | float, BeforeValidator(read_steps)]
"""Whole steps, or a share of all steps when below 1."""

Fraction01 = float
"""A share from 0 to 1 (the bounds stand in the option)."""

TextList = Annotated[tuple[str, ...], BeforeValidator(read_text_list)]
"""'key=value' items."""
