"""All settings of a run: typed, checked, frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from backend.errors import InputError, Problem
from backend.settings import sections, sections_sd3, sections_sharding, sections_small, sections_whole
from backend.settings.arguments import argument_problems
from backend.settings.convert import convert, plain
from backend.settings.declare import SECTIONS, Declared, declarations
from backend.settings.dialect import translate

Where = Callable[[str], str] | Mapping[str, str] | None


class Settings(BaseModel):
    """One section per concern. Equal settings have equal values in every option."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: sections.ModelSettings = Field(default_factory=sections.ModelSettings)
    dataset: sections.DatasetSettings = Field(default_factory=sections.DatasetSettings)
    caching: sections.CachingSettings = Field(default_factory=sections.CachingSettings)
    network: sections.NetworkSettings = Field(default_factory=sections.NetworkSettings)
    whole: sections_whole.WholeSettings = Field(default_factory=sections_whole.WholeSettings)
    word: sections_small.WordSettings = Field(default_factory=sections_small.WordSettings)
    guide: sections_small.GuideSettings = Field(default_factory=sections_small.GuideSettings)
    optimizer: sections.OptimizerSettings = Field(default_factory=sections.OptimizerSettings)
    schedule: sections.ScheduleSettings = Field(default_factory=sections.ScheduleSettings)
    loss: sections.LossSettings = Field(default_factory=sections.LossSettings)
    sd3: sections_sd3.Sd3Settings = Field(default_factory=sections_sd3.Sd3Settings)
    precision: sections.PrecisionSettings = Field(default_factory=sections.PrecisionSettings)
    saving: sections.SavingSettings = Field(default_factory=sections.SavingSettings)
    metadata: sections.MetadataSettings = Field(default_factory=sections.MetadataSettings)
    sampling: sections.SamplingSettings = Field(default_factory=sections.SamplingSettings)
    tracking: sections.TrackingSettings = Field(default_factory=sections.TrackingSettings)
    hub: sections.HubSettings = Field(default_factory=sections.HubSettings)
    launch: sections.LaunchSettings = Field(default_factory=sections.LaunchSettings)
    sharding: sections_sharding.ShardingSettings = Field(default_factory=sections_sharding.ShardingSettings)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], where: Where = None) -> Settings:
        """Settings out of ``{key: value}``, written as in a TOML file; the rest are defaults.

        sd-scripts' names are understood. ``where`` tells where a key stands, for messages. Rules
        between options are not judged: see ``check``.

        Raises:
            InputError: every unknown key and every wrong value, in one list.
        """
        reading = read_values(values, where)
        if reading.problems:
            raise InputError(reading.problems)
        return reading.settings

    def flat(self) -> dict[str, Any]:
        """``{key: value}`` of all options as they are written to TOML and JSON.

        Sizes are texts ('512,768'), lists are lists of texts, and what is empty is None.
        """
        return {
            key: plain(declared, getattr(getattr(self, declared.section), key))
            for key, declared in declarations().items()
        }

    def changed(self) -> dict[str, Any]:
        """As ``flat``, only what differs from the defaults."""
        return {key: value for key, value in self.flat().items() if value != DEFAULTS[key]}

    def replace(self, **values: Any) -> Settings:
        """A copy with some options changed, written as for ``from_flat``.

        Raises:
            InputError: a key is unknown or a value wrong.
        """
        return Settings.from_flat({**self.flat(), **values})


DEFAULTS: Mapping[str, Any] = {key: plain(one, one.default) for key, one in declarations().items()}
"""Key -> default, as written."""


@dataclass(frozen=True)
class Reading:
    """Settings as far as they could be read; wrong values stand at their defaults."""

    settings: Settings
    notes: list[Problem] = field(default_factory=list[Problem])
    problems: list[Problem] = field(default_factory=list[Problem])
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    """Option -> where it stands."""
    given: frozenset[str] = frozenset()
    """Options that were written, whatever their value."""

    def wrong(self) -> set[str]:
        """Options with a problem."""
        return {problem.key for problem in self.problems if problem.key}


def read_values(values: Mapping[str, Any], where: Where = None) -> Reading:
    """Settings, notes and problems out of ``{key: value}`` in any dialect that is understood."""
    translated = translate(values, place_of(where))
    reading = read_own(translated.values, translated.where)
    problems = [*translated.problems, *reading.problems]
    return Reading(reading.settings, translated.notes, problems, reading.where, reading.given)


def read_own(values: Mapping[str, Any], where: Mapping[str, str]) -> Reading:
    """As ``read_values``, with keys that are all Atelier's own."""
    parts: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    problems: list[Problem] = []
    for key, value in values.items():
        declared = declarations()[key]
        try:
            parts[declared.section][key] = convert(declared, value)
        except ValueError as error:
            problems.append(_wrong(declared, error, where.get(key, "")))
    problems += argument_problems(values, where)
    return Reading(Settings.model_validate(parts), [], problems, where, frozenset(values))


def place_of(where: Where) -> Callable[[str], str]:
    """A function key -> place, out of whatever a caller has."""
    if where is None:
        return lambda key: ""
    return where if callable(where) else lambda key: where.get(key, "")


def _wrong(declared: Declared, error: ValueError, place: str) -> Problem:
    return Problem(f"{declared.key}: {error}", where=place, key=declared.key)
