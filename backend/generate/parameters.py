"""The ``parameters`` text inside PNG files, which other programs write and read.

The prompt (networks as ``<lora:name:strength>``), the negative prompt, and one line of settings. Files are
named without their folders: a picture that is given away tells nothing of the machine it was made on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.generate import samplers
from backend.generate.prompts import network_tag, with_networks
from backend.generate.request import EMPHASIS_MODES, Hires, LoraUse, Request, StatedSizes

_PAIR = re.compile(r'\s*([\w ./+-]+):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
_UPSCALERS = {"latent": "Latent", "image": "Lanczos"}
_STATED = {
    "width": "Original width",
    "height": "Original height",
    "width_negative": "Negative original width",
    "height_negative": "Negative original height",
    "top": "Crop top",
    "left": "Crop left",
}


@dataclass(frozen=True)
class Parameters:
    """What the ``parameters`` text of a PNG file says."""

    request: Request
    """Without files, which are named by the fields below."""
    loras: tuple[LoraUse, ...] = ()
    """By the files' names without ending."""
    model: str = ""
    vae: str = ""
    others: Mapping[str, str] = field(default_factory=dict[str, str])
    """Keys that are not part of a request, as written; the names of other pictures (``Init image``,
    ``Mask image``) among them."""


def parameters_text(request: Request, model: str = "", loras: tuple[LoraUse, ...] = ()) -> str:
    """The text for a picture of ``request``. ``loras``: networks beside the request's own."""
    tags = "".join(f" {network_tag(lora)}" for lora in (*request.loras, *loras))
    pairs = {
        "Steps": request.steps,
        "Sampler": samplers.SAMPLERS[request.sampler].label,
        "CFG scale": f"{request.scale:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": model,
        "VAE": Path(request.vae).name,
        "Clip skip": request.clip_skip,
        "Max token length": request.max_token_length,
        "Negative scale": request.negative_scale,
        "Emphasis": "" if request.emb_normalize_mode == "original" else request.emb_normalize_mode,
        "Zero terminal SNR": "True" if request.zero_terminal_snr else "",
        **_picture_pairs(request),
        **_hires_pairs(request.hires),
    }
    if request.variation_strength > 0:
        pairs |= {
            "Variation seed": request.variation_seed,
            "Variation seed strength": f"{request.variation_strength:g}",
        }
    if request.stated:
        pairs |= {title: getattr(request.stated, name) for name, title in _STATED.items()}
    settings = ", ".join(
        f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value not in ("", None)
    )
    negative = f"\nNegative prompt: {request.negative}" if request.negative else ""
    return f"{request.prompt}{tags}{negative}\n{settings}"


def _picture_pairs(request: Request) -> dict[str, Any]:
    """What was drawn over, and what was followed."""
    pairs: dict[str, Any] = {"VAE tile": request.vae_tile}
    if request.image:
        pairs |= {
            "Denoising strength": f"{request.strength:g}",
            "Init image": Path(request.image).name,
            "Mask image": Path(request.mask).name if request.mask else "",
        }
    for number, guide in enumerate(request.guides):
        pairs[f"Guide {number}"] = (
            f"{Path(guide.path).stem}, picture {Path(guide.image).name}, "
            f"strength {guide.strength:g}, ratio {guide.ratio:g}"
        )
    return pairs


def _hires_pairs(hires: Hires | None) -> dict[str, Any]:
    if hires is None:
        return {}
    sized = f"{hires.width}x{hires.height}" if hires.width and hires.height else ""
    return {
        "Hires upscale": f"{hires.scale:g}",
        "Hires resize": sized,
        "Hires steps": hires.steps,
        "Hires upscaler": _UPSCALERS[hires.mode],
        "Hires strength": f"{hires.strength:g}",
    }


def read_parameters(text: str) -> Parameters:
    """The settings in a ``parameters`` text; what is not understood stands in ``others``."""
    lines = text.strip().splitlines()
    has_settings = bool(lines) and re.match(r"Steps: \d", lines[-1]) is not None
    written = {key: value.strip() for key, value in _PAIR.findall(lines.pop())} if has_settings else {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    named = with_networks(Request(prompt=prompt.strip()))
    pairs = _Pairs(written)
    request = _Reader(pairs).request(named.prompt, negative.strip())
    model, vae = pairs.text("Model"), pairs.text("VAE")
    return Parameters(request.noted(*named.notes), named.loras, model, vae, pairs.left)


class _Pairs:
    """Settings as written; those that were understood are gone from ``left``."""

    def __init__(self, written: dict[str, str]) -> None:
        self.left = written
        self.notes: list[str] = []

    def text(self, key: str) -> str:
        return _unquoted(self.left.pop(key, ""))

    def take(self, key: str, read: Callable[[str], Any]) -> Any:
        """The value of a key, None when it is not there or cannot be read (then it stays, with a note)."""
        if key not in self.left:
            return None
        try:
            value = read(_unquoted(self.left[key]))
        except (ValueError, KeyError):
            self.notes.append(f"{key} '{self.left[key]}' cannot be read and was left out")
            return None
        del self.left[key]
        return value


class _Reader:
    """A request out of pairs."""

    def __init__(self, pairs: _Pairs) -> None:
        self.pairs = pairs

    def request(self, prompt: str, negative: str) -> Request:
        take = self.pairs.take
        width, height = take("Size", _size) or (None, None)
        found: dict[str, Any] = {
            "steps": take("Steps", int),
            "sampler": self._sampler(),
            "scale": take("CFG scale", float),
            "seed": take("Seed", int),
            "width": width,
            "height": height,
            "clip_skip": take("Clip skip", int),
            "max_token_length": take("Max token length", int),
            "negative_scale": take("Negative scale", float),
            "emb_normalize_mode": take("Emphasis", _one_of(EMPHASIS_MODES)),
            "vae_tile": take("VAE tile", int),
            "zero_terminal_snr": take("Zero terminal SNR", "True".__eq__),
            "variation_seed": take("Variation seed", int),
            "variation_strength": take("Variation seed strength", float),
            "hires": self._hires(),
            "stated": self._stated(),
            "strength": take("Denoising strength", float),
        }
        known = {key: value for key, value in found.items() if value is not None}
        return Request(prompt=prompt, negative=negative, **known).noted(*self.pairs.notes)

    def _sampler(self) -> str | None:
        """By its name; WebUI of late writes ``Schedule type`` beside it."""
        schedule = self.pairs.left.get("Schedule type", "")
        written = self.pairs.left.get("Sampler", "")
        whole = samplers.canonical(f"{written} {schedule}") if schedule else None
        if whole is not None:
            del self.pairs.left["Sampler"], self.pairs.left["Schedule type"]
            return whole
        return self.pairs.take("Sampler", _sampler_name)

    def _hires(self) -> Hires | None:
        take = self.pairs.take
        scale, size = take("Hires upscale", float), take("Hires resize", _size)
        if scale is None and size is None:
            return None
        mode = self.pairs.text("Hires upscaler").lower()
        strength = take("Hires strength", float)
        if strength is None:  # other programs have one strength for a picture
            strength = take("Denoising strength", float)
        steps = take("Hires steps", int)
        hires = Hires(steps=steps or None, mode="latent" if mode.startswith("latent") else "image")
        hires = hires if scale is None else replace(hires, scale=scale)
        hires = hires if strength is None else replace(hires, strength=strength)
        return hires if size is None else replace(hires, width=size[0], height=size[1])

    def _stated(self) -> StatedSizes | None:
        found = {name: self.pairs.take(title, int) for name, title in _STATED.items()}
        known = {name: value for name, value in found.items() if value is not None}
        return StatedSizes(**known) if known else None


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _sampler_name(text: str) -> str:
    name = samplers.canonical(text)
    if name is None:
        raise ValueError(text)
    return name


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return read


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value
