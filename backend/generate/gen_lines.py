"""Prompts of ``gen_img.py``: a line with options after `` --``, as in sd-scripts.

``a cat --n blurry --w 512 --h 768 --d 7,8 --s 20 --l 6 --nl 3 --t 0.7 --am 0.5,1 --f cat.png``. Options that
ask for what is not done here are left out and noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.errors import InputError
from backend.generate import prompts, samplers
from backend.generate.request import Request, StatedSizes

_OPTION = re.compile(r"\s+--(?=[A-Za-z])")
_NOT_DONE = {
    "c": "a prompt for CLIP guidance",
    **dict.fromkeys(("dsd1", "dst1", "dsd2", "dst2", "dsr"), "Deep Shrink"),
    **dict.fromkeys(("glt", "glr", "gle", "gls", "glsn", "glus"), "Gradual Latent"),
}


@dataclass(frozen=True)
class GenPrompt:
    """What one line asks for."""

    request: Request
    """Without seed; ``steps`` and ``strength`` are those of the last pass."""
    raw: str
    """The line as it was written."""
    seeds: tuple[int, ...] = ()
    """Of its first pictures."""
    multipliers: tuple[float, ...] = ()
    """Of the networks, the last for all that follow; () for those of the command line."""
    name: str = ""
    """Of the picture's file."""


@dataclass
class _Line:
    """A line while its options are read."""

    request: Request
    stated: dict[str, int] = field(default_factory=dict[str, int])
    seeds: tuple[int, ...] = ()
    multipliers: tuple[float, ...] = ()
    name: str = ""


def parse(line: str, defaults: Request) -> GenPrompt:
    """One line; ``defaults`` gives what it leaves out."""
    text, *options = _OPTION.split(f" {line.strip()}")
    found = _Line(replace(defaults, prompt=text.strip()))
    for option in options:
        name, _, value = option.strip().partition(" ")
        _read(found, name.lower(), value.strip())
    request = found.request
    if found.stated:
        before = request.stated or StatedSizes()
        request = replace(request, stated=replace(before, **found.stated))
    return GenPrompt(request, line.strip(), found.seeds, found.multipliers, found.name)


def read_file(path: Path, defaults: Request) -> list[GenPrompt]:
    """The prompts of a text file. Blank lines and lines that begin with ``#`` are skipped.

    Raises:
        InputError: it cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            "the prompt file cannot be read", where=str(path), why=why, key="from_file"
        ) from None
    return [parse(line, defaults) for line in lines if line.strip() and not line.startswith("#")]


def _read(line: _Line, name: str, value: str) -> None:
    """Take one option; what cannot be used is noted."""
    if name in _NOT_DONE:
        line.request = line.request.noted(f"--{name} is {_NOT_DONE[name]}, which is not done here")
        return
    if name not in _READERS:
        line.request = line.request.noted(f"--{name} is not an option of prompts and was left out")
        return
    try:
        _READERS[name](line, value)
    except (ValueError, OverflowError):
        line.request = line.request.noted(f"--{name} '{value}' cannot be read and was left out")


def _field(key: str, read: Callable[[str], object]) -> Callable[[_Line, str], None]:
    def take(line: _Line, value: str) -> None:
        line.request = replace(line.request, **{key: read(value)})  # type: ignore[arg-type]

    return take


def _stated(key: str) -> Callable[[_Line, str], None]:
    def take(line: _Line, value: str) -> None:
        line.stated[key] = int(value)

    return take


def _seeds(line: _Line, value: str) -> None:
    line.seeds = tuple(int(each) for each in value.split(","))


def _multipliers(line: _Line, value: str) -> None:
    line.multipliers = tuple(float(each) for each in value.split(","))


def _name(line: _Line, value: str) -> None:
    line.name = value


def _maybe(value: str) -> float | None:
    return None if value.lower() == "none" else prompts.number(value)


def _sampler(value: str) -> str:
    name = samplers.canonical(value)
    if name is None:
        raise ValueError(value)
    return name


_READERS: Mapping[str, Callable[[_Line, str], None]] = {
    "w": _field("width", int),
    "h": _field("height", int),
    "ow": _stated("width"),
    "oh": _stated("height"),
    "nw": _stated("width_negative"),
    "nh": _stated("height_negative"),
    "ct": _stated("top"),
    "cl": _stated("left"),
    "s": _field("steps", int),
    "ss": _field("sampler", _sampler),
    "l": _field("scale", prompts.number),
    "nl": _field("negative_scale", _maybe),
    "t": _field("strength", prompts.number),
    "n": _field("negative", str),
    "d": _seeds,
    "am": _multipliers,
    "f": _name,
}
