"""Which kind of settings a text holds, and reading it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from backend.errors import InputError
from backend.settings.dialect import needless_beside
from backend.settings.imports.command import import_command
from backend.settings.imports.kohya import import_form
from backend.settings.imports.metadata import metadata_values
from backend.settings.imports.report import Imported, Sheet, by_declaration
from backend.settings.tomlfile import HEADER, MAX_BYTES

_DATASET = ("datasets", "general")


def import_text(text: str, name: str = "") -> Imported:
    """Settings out of a file's text: JSON of kohya_ss, TOML of sd-scripts or ours, or a command line.

    Args:
        text: the content; ``name``: the file's name, for messages.

    Raises:
        InputError: it holds no settings.
    """
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise InputError("the file is empty", where=name)
    if len(text) > MAX_BYTES:
        raise InputError(f"this is no settings file: it has {len(text):,} characters", where=name)
    if text.startswith(("{", "[")) and not text.startswith("[["):
        found = _json(text)
        if found is not None:
            return _from_json(found, name)
    if re.match(r"(?s)^(accelerate|python\S*|\S+\.py|--\w|\.?[\\/]\S+)(\s|=)", text):
        return import_command(text)
    return _from_toml(text, name)


def import_metadata(metadata: Mapping[str, str]) -> Imported:
    """Settings that a trained file says it was made with.

    Raises:
        InputError: it says nothing of the kind.
    """
    sheet, values = Sheet(), dict(metadata_values(metadata))
    if not values:
        raise InputError(
            "the file does not say how it was trained", next="files of sd-scripts and ours hold ss_ entries"
        )
    for key in by_declaration(values):
        sheet.dialect(key, values[key])
    return sheet.finish("metadata", values)


def _json(text: str) -> dict[str, Any] | None:
    """A table out of JSON; None when it is none, so that TOML is tried."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _from_json(found: dict[str, Any], name: str) -> Imported:
    metadata = found.get("__metadata__")
    if isinstance(metadata, dict):
        return import_metadata(cast("dict[str, str]", metadata))
    if any(key.startswith("ss_") for key in found):
        return import_metadata({key: str(value) for key, value in found.items()})
    if any(key in found for key in _DATASET):
        raise _dataset_file(name)
    if found and all(isinstance(value, dict) for value in found.values()):
        raise InputError(
            "this file tells of pictures, not of settings",
            where=name,
            next="give its path as the metadata file (in_json)",
        )
    return import_form(found)


def _from_toml(text: str, name: str) -> Imported:
    try:
        found = tomlkit.parse(text).unwrap()
    except (TOMLKitError, RecursionError) as error:
        raise InputError(
            "this is no settings file",
            where=name,
            why=f"it is neither JSON, nor a command line, nor TOML ({error})",
            next="give a .json of kohya_ss, a .toml of sd-scripts or Atelier, or a trained .safetensors",
        ) from None
    if any(isinstance(found.get(key), (dict, list)) for key in _DATASET):
        raise _dataset_file(name)
    sheet = Sheet()
    pairs = _flat(found)
    for key in by_declaration(pairs):
        if why := needless_beside(key, pairs):
            sheet.idle(key, pairs[key], why)
        else:
            sheet.dialect(key, pairs[key])
    if not sheet.entries:
        raise InputError("the file holds no settings", where=name)
    return sheet.finish("sd-scripts", pairs)


def _flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with the headings taken away."""
    pairs: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            pairs |= cast("dict[str, Any]", value) if key != HEADER else {}
        else:
            pairs[key] = value
    return pairs


def _dataset_file(name: str) -> InputError:
    return InputError(
        "this is a dataset file, not a file of settings",
        where=name,
        next="give its path in the field Dataset file (dataset_config)",
    )
