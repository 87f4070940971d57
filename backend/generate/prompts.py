"""Prompts written by people: prompt lines and files, and networks named in them.

In a line, options stand after `` --``: ``a cat --n blurry --w 512 --h 768 --d 7 --s 20 --l 6 --ss
euler_a``. The prompt itself is never searched for options. What cannot be used is left out and said
in the request's notes; it never ends a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.generate import samplers
from backend.generate.request import MAX_STEPS, Guide, LoraUse, Request

_OPTION = re.compile(r"(?:^|\s+)--(?=[A-Za-z])")
_ELSEWHERE = {
    "g": "a guidance scale for other families",
    "ctr": "a setting of another family",
    "rcfg": "a setting of another family",
    "fs": "a flow shift for other families",
    "guidance_scale": "a guidance scale for other families",
}
_GUIDES = ("cn", "controlnet_image")
"""The picture that is followed by what steers: the request's files, or what is being trained."""


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


def number(text: str) -> float:
    """A finite number, or ValueError."""
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
_SCALE = _Field("scale", number, "a number")
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
    if key in _GUIDES:
        image = text.strip()
        guides = tuple(replace(guide, image=image) for guide in request.guides) or (Guide("", image),)
        return replace(request, guides=guides)
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


_NETWORK = re.compile(r"\s*<(?:lora|lyco|lycoris):([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)


def with_networks(request: Request) -> Request:
    """The request with networks named in its prompt, ``<lora:name:0.8>``, among its ``loras``.

    Two numbers are those for text encoders and U-Net, as WebUI has it; ``te=0.5`` and ``unet=1`` say it
    by name. A number that cannot be read counts 1, with a note.
    """
    found = list(_NETWORK.finditer(request.prompt))
    if not found:
        return request
    notes: list[str] = []
    uses = tuple(_lora_use(match[1].strip(), match[2].split(":")[1:], notes) for match in found)
    prompt = _NETWORK.sub("", request.prompt).strip()
    return request.noted(*notes, prompt=prompt, loras=(*request.loras, *uses))


def _lora_use(name: str, words: list[str], notes: list[str]) -> LoraUse:
    plain: list[float] = []
    named: dict[str, float] = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.rpartition("="))
        try:
            strength = number(value)
        except ValueError:
            notes.append(f"'{word}' of the network {name} is no strength; it counts 1")
            strength = 1.0
        if equals:
            named[key.lower()] = strength
        else:
            plain.append(strength)
    text = named.get("te", plain[0] if plain else named.get("unet", 1.0))
    denoiser = named.get("unet", plain[1] if len(plain) > 1 else text)
    return LoraUse(name, denoiser, None if text == denoiser else text)


def network_tag(lora: LoraUse) -> str:
    """A network as :func:`with_networks` reads it, by its file's name without folder and ending."""
    name = Path(lora.path).stem if Path(lora.path).suffix in _ENDINGS else Path(lora.path).name
    text = lora.strength if lora.text_strength is None else lora.text_strength
    strengths = f"{text:g}" if text == lora.strength else f"{text:g}:{lora.strength:g}"
    return f"<lora:{name}:{strengths}>"


_ENDINGS = (".safetensors", ".ckpt", ".pt", ".bin")
