"""The table of all options, read off the sections: the one source of everything derived."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from backend.settings import sections, sections_sd3, sections_sharding, sections_small, sections_whole
from backend.settings.methods import NETWORK
from backend.settings.option import OptionInfo, ResumeEffect, Section, info_of

Kind = Literal["bool", "int", "float", "text", "choice", "textlist", "resolution", "steps"]

SECTIONS: Mapping[str, type[Section]] = {
    "model": sections.ModelSettings,
    "dataset": sections.DatasetSettings,
    "caching": sections.CachingSettings,
    "network": sections.NetworkSettings,
    "whole": sections_whole.WholeSettings,
    "word": sections_small.WordSettings,
    "guide": sections_small.GuideSettings,
    "optimizer": sections.OptimizerSettings,
    "schedule": sections.ScheduleSettings,
    "loss": sections.LossSettings,
    "sd3": sections_sd3.Sd3Settings,
    "precision": sections.PrecisionSettings,
    "saving": sections.SavingSettings,
    "metadata": sections.MetadataSettings,
    "sampling": sections.SamplingSettings,
    "tracking": sections.TrackingSettings,
    "hub": sections.HubSettings,
    "launch": sections.LaunchSettings,
    "sharding": sections_sharding.ShardingSettings,
}
"""Section name -> its model, in the order of form, file and reference."""

_KINDS: Mapping[Any, Kind] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "text",
    frozenset((int, float)): "steps",
    tuple[str, ...]: "textlist",
    tuple[int, int]: "resolution",
}


@dataclass(frozen=True)
class Bounds:
    """A range of numbers; an open end is not part of it."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, number: float) -> bool:
        if self.low is not None and (number < self.low or (self.low_open and number == self.low)):
            return False
        return self.high is None or not (number > self.high or (self.high_open and number == self.high))

    def text(self) -> str:
        """For people: '1 to 1024', 'above 0 to 1000', '0 or more'; empty without bounds."""
        low = "" if self.low is None else f"above {_short(self.low)}" if self.low_open else _short(self.low)
        high = (
            "" if self.high is None else f"below {_short(self.high)}" if self.high_open else _short(self.high)
        )
        if low and high:
            return f"{low} to {high}"
        return f"{low} or more" if low else f"up to {high}" if high else ""


@dataclass(frozen=True)
class Declared:
    """One option as declared."""

    key: str
    section: str
    kind: Kind
    optional: bool
    """It may be left empty (None)."""
    default: Any
    choices: tuple[str | int, ...]
    """Allowed values of a choice."""
    bounds: Bounds
    info: OptionInfo

    @property
    def resume(self) -> ResumeEffect:
        """What another value means for a run that is resumed."""
        return self.info.resume or SECTIONS[self.section].on_resume

    @property
    def methods(self) -> tuple[str, ...]:
        """Training methods it applies to; empty: all. Arguments of networks are for networks."""
        own = self.info.methods or (NETWORK if self.info.network_arg else ())
        return own or SECTIONS.get(self.section, Section).methods


@cache
def declarations() -> Mapping[str, Declared]:
    """Key -> option, sections in order and fields in order within."""
    found: dict[str, Declared] = {}
    for section, model in SECTIONS.items():
        for key, option in declared_in(section, model).items():
            assert key not in found, f"two options named {key}"
            found[key] = option
    return found


def declared_in(name: str, model: type[Section]) -> dict[str, Declared]:
    """Key -> option of one section, in order; also of sections that belong to no training."""
    return {key: _declared(key, name, field) for key, field in model.model_fields.items()}


def nearest(word: str, words: Iterable[str], likeness: float = 0.7) -> str | None:
    """The word most like ``word``; None when none is near. ``likeness`` is from 0 to 1 (the same)."""
    return next(iter(get_close_matches(word, list(words), n=1, cutoff=likeness)), None)


def _declared(key: str, section: str, field: FieldInfo) -> Declared:
    info = info_of(field)
    kind, optional, literals = _read_annotation(field.annotation)
    choices = literals or info.choices
    return Declared(
        key=key,
        section=section,
        kind="choice" if choices else kind,
        optional=optional,
        default=field.default,
        choices=choices,
        bounds=_bounds(field),
        info=info,
    )


def _read_annotation(annotation: Any) -> tuple[Kind, bool, tuple[str | int, ...]]:
    """Kind, whether None is allowed, and the values of a Literal."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    wanted = [member for member in members if member is not type(None)]
    optional = len(wanted) < len(members)
    if get_origin(wanted[0]) is Literal:
        return "choice", optional, get_args(wanted[0])
    return _KINDS[wanted[0] if len(wanted) == 1 else frozenset(wanted)], optional, ()


def _bounds(field: FieldInfo) -> Bounds:
    ends = {
        name: getattr(m, name)
        for m in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(m, name)
    }
    return Bounds(
        low=ends.get("ge", ends.get("gt")),
        high=ends.get("le", ends.get("lt")),
        low_open="gt" in ends,
        high_open="lt" in ends,
    )


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
