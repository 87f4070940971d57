"""Jobs on model files as plain data: what a page asks for, and what a process of its own does.

A job is a table: ``{"kind": "resize", "model": "a.safetensors", "save_to": ..., "new_rank": 8}``. The
fields of a kind are those of its dataclass.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from backend.errors import InputError
from backend.weights import (
    compare,
    convert,
    convert_lora,
    dylora,
    editing,
    extract,
    inspect,
    merge_into,
    merge_models,
    merge_networks,
    resize,
)
from backend.weights.report import Report
from backend.weights.streaming import Progress


@dataclass(frozen=True)
class Inspect:
    """Look into a file."""

    model: Path
    full_hash: bool = True


@dataclass(frozen=True)
class Compare:
    """Put two LoRAs side by side."""

    model: Path
    other: Path


def _inspect(job: Inspect, progress: Progress) -> dict[str, Any]:
    progress("reading", 0, 1)
    found = inspect.inspect(job.model, full_hash=job.full_hash).as_dict()
    progress("reading", 1, 1)
    return found


def _compare(job: Compare, progress: Progress) -> dict[str, Any]:
    progress("comparing", 0, 1)
    found = asdict(compare.compare(job.model, job.other))
    progress("comparing", 1, 1)
    return found


KINDS: Mapping[str, tuple[type[Any], Callable[[Any, Progress], Report | dict[str, Any]]]] = {
    "merge_into": (merge_into.MergeInto, merge_into.run),
    "merge_networks": (merge_networks.MergeNetworks, merge_networks.run),
    "resize": (resize.Resize, resize.run),
    "extract": (extract.Extract, extract.run),
    "split": (dylora.Split, dylora.run),
    "merge_models": (merge_models.MergeModels, merge_models.run),
    "convert": (convert.Convert, convert.run),
    "convert_lora": (convert_lora.ConvertLora, convert_lora.run),
    "edit_metadata": (editing.EditMetadata, editing.edit_metadata),
    "inspect": (Inspect, _inspect),
    "compare": (Compare, _compare),
}
"""Kind of job -> its dataclass, and what does it."""


def read_job(values: Mapping[str, Any]) -> tuple[str, Any]:
    """(kind, job) out of plain data.

    Raises:
        InputError: an unknown kind or field, one that is missing, or a value of another type.
    """
    kind = str(values.get("kind", ""))
    if kind not in KINDS:
        raise InputError(f"unknown job {kind or '(none)'}", why=f"known: {', '.join(KINDS)}", key="kind")
    shape = KINDS[kind][0]
    hints = get_type_hints(shape)
    given = {key: value for key, value in values.items() if key != "kind"}
    for key in given:
        if key not in hints:
            raise InputError(f"{kind} has no field {key}", why=f"known: {', '.join(hints)}", key=key)
    for field in fields(shape):
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{kind}: {field.name} is missing", key=field.name)
    return kind, shape(**{key: _value(key, hints[key], value) for key, value in given.items()})


def run_job(values: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do a job; the report as plain data, with ``text`` for people.

    Raises:
        AtelierError: as the job says it.
    """
    kind, job = read_job(values)
    found = KINDS[kind][1](job, progress)
    if isinstance(found, Report):
        return {**found.as_dict(), "text": found.text()}
    return found


def _value(key: str, hint: Any, value: Any) -> Any:
    """A plain value in a field's type."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or value == "":
            return None
        return _value(key, next(choice for choice in choices if choice is not types.NoneType), value)
    if origin is Literal:
        if value not in choices:
            raise InputError(f"{key}: {value} is none of {', '.join(map(str, choices))}", key=key)
        return value
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(k): str(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(value, (list, tuple)):
        return [_value(key, choices[0], item) for item in cast("Sequence[Any]", value)]
    return _plain(key, hint, value)


def _plain(key: str, hint: Any, value: Any) -> Any:
    good = {bool: (bool,), int: (int,), float: (int, float), str: (str,), Path: (str,)}
    wanted = good.get(hint)
    if wanted is None or not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        name = {Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}.get(
            hint, "a text"
        )
        raise InputError(f"{key}: expected {name}, got {value!r}", key=key)
    return hint(value)
