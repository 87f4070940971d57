"""Prompts written by people: prompt lines and files, and the text inside finished PNG files.

In a line, options stand after `` --``: ``a cat --n blurry --w 512 --h 768 --d 7 --s 20 --l 6 --ss
euler_a``. The prompt itself is never searched for options. What cannot be used is left out and said
in the request's notes; it never ends a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.generate import samplers
from backend.generate.request import MAX_STEPS, Request

_OPTION = re.compile(r"(?:^|\s+)--(?=[A-Za-z])")
_ELSEWHERE = {
    "g": "a guidance scale for other families",
    "cn": "a ControlNet picture",
    "ctr": "a setting of another family",
    "rcfg": "a setting of another family",
    "fs": "a flow shift for other families",
    "guidance_scale": "a guidance scale for other families",
    "controlnet_image": "a ControlNet picture",
}


@dataclass(frozen=True)
class _Field:
    name: str
    read: Callable[[str], Any]
    expects: str


def _whole(text: str) -> int:
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


def _steps(text: str) -> int:
    return min(max(_whole(text), 1), MAX_STEPS)


def _number(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(text)
    return number


def _sampler(text: str) -> str:
    name = samplers.canonical(text)
    if name is None:
        raise ValueError(text)
    return name


_WIDTH = _Field("width", _whole, "a whole number of pixels")
_HEIGHT = _Field("height", _whole, "a whole number of pixels")
_SEED = _Field("seed", _whole, "a whole number")
_STEPS = _Field("steps", _steps, "a whole number of steps")
_SCALE = _Field("scale", _number, "a number")
_NEGATIVE = _Field("negative", str.strip, "text")
_SAMPLER = _Field("sampler", _sampler, "one of " + ", ".join(samplers.SAMPLERS))
_OPTIONS = {
    "w": _WIDTH,
    "h": _HEIGHT,
    "d": _SEED,
    "s": _STEPS,
    "l": _SCALE,
    "n": _NEGATIVE,
    "ss": _SAMPLER,
}
_KEYS = {
    "width": _WIDTH,
    "height": _HEIGHT,
    "seed": _SEED,
    "sample_steps": _STEPS,
    "scale": _SCALE,
    "negative_prompt": _NEGATIVE,
    "sample_sampler": _SAMPLER,
}


def parse_line(line: str, defaults: Request | None = None) -> Request:
    """The request that one prompt line asks for; ``defaults`` gives what the line leaves out."""
    prompt, *options = _OPTION.split(line.strip())
    request = replace(defaults or Request(), prompt=prompt.strip())
    for option in options:
        name, _, value = option.strip().partition(" ")
        request = _set(request, _OPTIONS, name.lower(), value, f"--{name}")
    return request if request.prompt else request.noted("the prompt is empty")


def parse_lines(text: str, defaults: Request | None = None) -> list[Request]:
    """Requests of prompt lines. Blank lines and lines that begin with ``#`` are skipped."""
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip() and line[0] != "#"]
    return [parse_line(line, defaults) for line in lines]


def read_prompt_file(path: Path, defaults: Request | None = None) -> list[Request]:
    """Requests of a ``.txt``, ``.json`` or ``.toml`` prompt file.

    Raises InputError naming the file, and the line where there is one.
    """
    readers = {".txt": parse_lines, ".json": _parse_json, ".toml": _parse_toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            "the prompt file is of no known kind", where=str(path), next="Use .txt, .json or .toml."
        )
    try:
        return reader(path.read_text("utf-8-sig"), defaults)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("the prompt file cannot be read", where=str(path), why=reason) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"the prompt file is not UTF-8 (byte {error.start})", where=str(path), next="Save it as UTF-8."
        ) from None
    except ValueError as error:
        raise InputError(f"the prompt file cannot be read: {error}", where=str(path)) from None


def _parse_json(text: str, defaults: Request | None) -> list[Request]:
    items = json.loads(text)
    if not isinstance(items, list):
        raise ValueError("expected a list of prompts")
    return [_parse_item(item, defaults, f"prompt {number}") for number, item in enumerate(items, 1)]


def _parse_toml(text: str, defaults: Request | None) -> list[Request]:
    import tomlkit

    table = tomlkit.parse(text).unwrap().get("prompt")
    if not isinstance(table, Mapping):
        raise ValueError("expected a table [prompt] with [[prompt.subset]] tables")
    shared = {key: value for key, value in table.items() if key != "subset"}
    subsets = table.get("subset", [{}])
    if not isinstance(subsets, list):
        raise ValueError("expected [[prompt.subset]], with two brackets")
    for number, subset in enumerate(subsets, 1):
        for key in sorted(shared.keys() & subset.keys()):
            raise ValueError(f"'{key}' stands both in [prompt] and in prompt.subset {number}")
    return [_parse_item({**shared, **subset}, defaults, "prompt") for subset in subsets]


def _parse_item(item: Any, defaults: Request | None, where: str) -> Request:
    if isinstance(item, str):
        return parse_line(item, defaults)
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} is neither a text nor a table")
    request = replace(defaults or Request(), prompt=str(item.get("prompt", "")).strip())
    for key, value in item.items():
        if key not in ("prompt", "enum"):
            request = _set(request, _KEYS, key, str(value), f"'{key}'")
    return request if request.prompt else request.noted("the prompt is empty")


def _set(request: Request, known: Mapping[str, _Field], key: str, text: str, shown: str) -> Request:
    """The request with one option read from text, or with a note why it was left out."""
    if key in _ELSEWHERE:
        return request.noted(f"{shown} is {_ELSEWHERE[key]} and was left out")
    if key not in known:
        return request.noted(f"{shown} is not an option of prompts and was left out")
    option = known[key]
    try:
        value = option.read(text)
    except (ValueError, OverflowError):
        return request.noted(f"{shown} needs {option.expects}, not '{text.strip()}'; it was left out")
    clamped = option is _STEPS and value != _whole(text)
    note = f"{shown} {text.strip()} became {value}" if clamped else ""
    return request.noted(note, **{option.name: value})


@dataclass(frozen=True)
class Lora:
    """A network file's name and how strongly it acts."""

    name: str
    strength: float = 1.0


@dataclass(frozen=True)
class Parameters:
    """What the ``parameters`` text of a PNG file says."""

    request: Request
    loras: tuple[Lora, ...] = ()
    model: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    """Keys that are not part of a request, as written."""


_LORA = re.compile(r"\s*<lora:([^:<>]+)(?::(-?[\d.]+))?[^<>]*>")
_PAIR = re.compile(r'\s*([\w ./+-]+):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


def parameters_text(request: Request, model: str = "", loras: tuple[Lora, ...] = ()) -> str:
    """The ``parameters`` text that other programs read from PNG files: the prompt (networks as
    ``<lora:name:strength>``), the negative prompt, and one line of settings."""
    tags = "".join(f" <lora:{lora.name}:{lora.strength:g}>" for lora in loras)
    pairs = {
        "Steps": request.steps,
        "Sampler": samplers.SAMPLERS[request.sampler].label,
        "CFG scale": f"{request.scale:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": _quoted(model),
        "Clip skip": request.clip_skip or "",
        "Max token length": request.max_token_length or "",
    }
    settings = ", ".join(f"{key}: {value}" for key, value in pairs.items() if value != "")
    negative = f"\nNegative prompt: {request.negative}" if request.negative else ""
    return f"{request.prompt}{tags}{negative}\n{settings}"


def read_parameters(text: str) -> Parameters:
    """The settings in a ``parameters`` text; what is not understood stands in ``others``."""
    lines = text.strip().splitlines()
    has_settings = bool(lines) and re.match(r"Steps: \d", lines[-1]) is not None
    pairs = dict(_PAIR.findall(lines.pop())) if has_settings else {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    loras = tuple(Lora(name, float(strength or 1)) for name, strength in _LORA.findall(prompt))
    request = Request(prompt=_LORA.sub("", prompt).strip(), negative=negative.strip())
    width, _, height = pairs.pop("Size", "").partition("x")
    known = {
        "Steps": _STEPS,
        "Sampler": _SAMPLER,
        "CFG scale": _SCALE,
        "Seed": _SEED,
        "w": _WIDTH,
        "h": _HEIGHT,
    }
    values = {**{key: pairs.pop(key) for key in list(pairs) if key in known}, "w": width, "h": height}
    for key, value in values.items():
        request = _set(request, known, key, value, key) if value else request
    for key, name in (("Clip skip", "clip_skip"), ("Max token length", "max_token_length")):
        if pairs.get(key, "").isdigit():
            request = replace(request, **{name: int(pairs.pop(key))})
    return Parameters(request, loras, _unquoted(pairs.pop("Model", "")), pairs)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value
