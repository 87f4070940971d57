"""The form of the Generate page: a table of fields, and what they ask the engine for.

A field's label stands under ``gen.<name>`` among the texts, its help, where there is one, under
``gen.<name>_info``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError, Problem
from backend.generate.protocol import ENCODERS
from backend.generate.request import HIRES_MODES
from backend.generate.samplers import SAMPLERS
from ui.i18n import t

Kind = Literal[
    "prompt",
    "whole",
    "number",
    "choice",
    "flag",
    "file",
    "folder",
    "seed",
    "picture",
    "mask",
    "loras",
    "guides",
]
_COMMON = ("euler_a", "dpmsolver++_karras", "dpmsolver++", "dpmsolver++_sde", "unipc", "ddim")
"""Samplers that people ask for most, first in the list."""


@dataclass(frozen=True)
class Field:
    """One field of the form."""

    name: str
    kind: Kind
    group: str
    default: Any = ""
    low: float | None = None
    high: float | None = None
    step: float = 1
    choices: tuple[tuple[str, str], ...] = ()
    """(value, label)."""


def _samplers() -> tuple[tuple[str, str], ...]:
    rest = [name for name in SAMPLERS if name not in _COMMON]
    return tuple((name, SAMPLERS[name].label) for name in (*_COMMON, *rest))


FIELDS: tuple[Field, ...] = (
    Field("model", "file", "model"),
    Field("loras", "loras", "model", ()),
    Field("compare", "flag", "model", False),
    Field("prompt", "prompt", "words"),
    Field("negative", "prompt", "words"),
    Field("steps", "whole", "main", 25, 1, 1000),
    Field("scale", "number", "main", 7.0, 0, 100, 0.5),
    Field("sampler", "choice", "main", "euler_a", choices=_samplers()),
    Field("seed", "seed", "main"),
    Field("width", "whole", "main", 512, 64, 4096, 8),
    Field("height", "whole", "main", 512, 64, 4096, 8),
    Field("count", "whole", "main", 1, 1, 1000),
    Field("batch", "whole", "main", 1, 1, 64),
    Field("image", "picture", "image"),
    Field("image_strength", "number", "image", 0.75, 0, 1, 0.05),
    Field("mask", "mask", "image"),
    Field("hires", "flag", "hires", False),
    Field("hires_scale", "number", "hires", 2.0, 1, 8, 0.25),
    Field("hires_mode", "choice", "hires", "latent", choices=tuple((mode, "") for mode in HIRES_MODES)),
    Field("hires_strength", "number", "hires", 0.6, 0, 1, 0.05),
    Field("hires_steps", "whole", "hires", None, 1, 1000),
    Field("guides", "guides", "guide", ()),
    Field("variation_strength", "number", "variation", 0.0, 0, 1, 0.05),
    Field("variation_seed", "seed", "variation"),
    Field("vae", "file", "files"),
    Field("embeddings", "folder", "files"),
    Field("lora_folder", "folder", "files"),
    *(Field(name, "file", "files") for name in ENCODERS),
    Field("clip_skip", "whole", "more", 1, 1, 12),
    Field("max_token_length", "whole", "more", None, 0, 1000),
    Field("negative_scale", "number", "more", None, 0, 100, 0.5),
    Field("vae_tile", "whole", "more", None, 64, 4096, 64),
    Field("preview", "flag", "more", True),
)
BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}
DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in FIELDS}
_DIRECT = (
    *("prompt", "negative", "steps", "scale", "sampler", "width", "height", "count", "batch", "seed"),
    *("variation_strength", "variation_seed", "clip_skip", "max_token_length", "negative_scale", "vae_tile"),
    *("vae", "embeddings", "lora_folder"),
)
"""Fields that a request has under the same name."""
_MAY_BE_EMPTY = ("hires_steps", "max_token_length", "negative_scale", "vae_tile", "clip_skip")
_PATHS = ("model", "vae", "embeddings", "lora_folder", *ENCODERS)


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """A whole form: the defaults, and what of ``values`` is a field's."""
    return {**DEFAULTS, **{key: value for key, value in values.items() if key in DEFAULTS}}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values in their own types: paths as people paste them, numbers as numbers.

    Raises:
        InputError: every field that is empty and must not be, holds no number, or names no file.
    """
    problems: list[Problem] = []
    found = {name: _read(BY_NAME[name], value, problems) for name, value in known(values).items()}
    problems += [_missing(key, found[key]) for key in _PATHS if found[key] and not Path(found[key]).exists()]
    problems += _stack_problems(found)
    if not found["model"]:
        problems.insert(0, Problem(t("gen.no_model"), next=t("gen.no_model_next"), key="model"))
    if problems:
        raise InputError(problems)
    return found


def _read(field: Field, value: Any, problems: list[Problem]) -> Any:
    match field.kind:
        case "file" | "folder":
            return path_of(value)
        case "whole" | "number":
            return _number(field, value, problems)
        case "seed":
            return _seed(field, value, problems)
        case "flag":
            return bool(value)
        case "loras" | "guides":
            return [_row(row, problems) for row in value or () if path_of(row.get("path"))]
        case _:
            return str(value or "")


def path_of(value: object) -> str:
    """A path as people paste it: quotes and spaces around it do not count."""
    text = str(value or "").strip().strip("\"'").strip()
    return str(Path(text).expanduser()) if text else ""


def _number(field: Field, value: Any, problems: list[Problem]) -> float | int | None:
    label = t(f"gen.{field.name}")
    if value in (None, ""):
        if field.name not in _MAY_BE_EMPTY:
            problems.append(Problem(t("gen.empty_number", label=label), key=field.name))
        return None
    try:
        number = float(value)
        if field.kind == "whole" and number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or field.kind == "whole":
        problems.append(Problem(t("gen.no_number", label=label, value=str(value)[:40]), key=field.name))
    return number


def _seed(field: Field, value: Any, problems: list[Problem]) -> int | None:
    """The seed written; None (a random one) when empty or below 0."""
    text = str(value if value is not None else "").strip()
    try:
        seed = int(text) if text else -1
    except ValueError:
        problems.append(
            Problem(t("gen.bad_seed", value=text[:40]), next=t("gen.bad_seed_next"), key=field.name)
        )
        return None
    return seed if 0 <= seed < 2**63 else None


def _row(row: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """One line of a stack of networks or guides."""
    found: dict[str, Any] = {"path": path_of(row["path"])}
    for name in ("strength", "text_strength", "ratio"):
        if row.get(name) in (None, ""):
            continue
        try:
            found[name] = float(row[name])
        except (TypeError, ValueError):
            key = "guides" if "image" in row else "loras"
            label = t(f"gen.{name}")
            problems.append(Problem(t("gen.no_number", label=label, value=str(row[name])[:40]), key=key))
    if "image" in row:
        found["image"] = str(row["image"] or "")
    return found


def _stack_problems(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with networks and guides that are named."""
    found: list[Problem] = []
    for key in ("loras", "guides"):
        for row in values[key]:
            by_name = values["lora_folder"] and "/" not in row["path"] and "\\" not in row["path"]
            if not by_name and not Path(row["path"]).is_file():
                found.append(_missing(key, row["path"]))
            if key == "guides" and not row.get("image"):
                found.append(Problem(t("gen.no_guide_image"), next=t("gen.no_guide_image_next"), key=key))
    if values["compare"] and not values["loras"]:
        found.append(Problem(t("gen.no_lora"), next=t("gen.no_lora_next"), key="compare"))
    if values["mask"] and not values["image"]:
        found.append(Problem(t("gen.mask_alone"), key="image"))
    return found


def _missing(key: str, path: str) -> Problem:
    label = t(f"gen.{key}")
    return Problem(t("gen.missing", label=label, path=path), next=t("gen.missing_next"), key=key)


def request_data(values: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    """What :func:`read` gave, as a request's JSON.

    Args:
        pictures: name of a given picture -> its file, for every one that the form names.
    """
    data = {key: values[key] for key in _DIRECT}
    data["loras"] = [dict(row) for row in values["loras"]]
    data["guides"] = [{**row, "image": pictures[row["image"]]} for row in values["guides"]]
    if values["image"]:
        data |= {"image": pictures[values["image"]], "strength": values["image_strength"]}
        data |= {"mask": pictures[values["mask"]]} if values["mask"] else {}
    if values["hires"]:
        names = ("scale", "mode", "strength", "steps")
        data["hires"] = {name: values[f"hires_{name}"] for name in names}
    if data["clip_skip"] == 1:
        data["clip_skip"] = None
    return data


def named_pictures(values: Mapping[str, Any]) -> list[str]:
    """Names of the given pictures that a form refers to."""
    names = [values["image"], values["mask"] if values["image"] else ""]
    return [name for name in (*names, *(row["image"] for row in values["guides"])) if name]
