"""Judging settings by the rules between options."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from backend.errors import Problem
from backend.settings.conditions import Values, holds
from backend.settings.declare import Declared, declarations
from backend.settings.methods import METHODS
from backend.settings.rules import RULES, Rule
from backend.settings.settings import DEFAULTS, Settings


@dataclass
class Verdict:
    """What the rules say of some settings."""

    settings: Settings
    """The settings as a run uses them, with the changes that follow from others made."""
    errors: list[Problem] = field(default_factory=list[Problem])
    """What stops a run."""
    notes: list[Problem] = field(default_factory=list[Problem])
    """What a person should know: changes that were made, options without effect."""


def check(settings: Settings, complete: bool = True) -> Verdict:
    """All rules on some settings. Files are not looked at: see ``check_files``.

    With ``complete`` off, a base model and pictures may be missing. The settings of a verdict get
    the same verdict, less the notes of the changes.
    """
    return judge(settings, complete)


def judge(settings: Settings, complete: bool = True, ignore: Collection[str] = ()) -> Verdict:
    """As ``check``, without the rules about keys in ``ignore``: those whose values could not be read."""
    verdict = Verdict(settings)
    values, changes = settings.flat(), dict[str, Any]()
    for rule in RULES:
        skipped = (rule.complete and not complete) or not set(rule.keys).isdisjoint(ignore)
        if skipped or not holds(rule.when, values):
            continue
        (verdict.errors if rule.kind == "error" else verdict.notes).append(_problem(rule, values))
        changes |= (rule.change(values) if callable(rule.change) else rule.change) or {}
        values |= changes
    verdict.errors += [
        _not_for(one, values) for one in declarations().values() if _is_for_others(one, values)
    ]
    verdict.notes += [_idle(one) for one in declarations().values() if _has_no_effect(one, values)]
    verdict.settings = settings.replace(**changes) if changes else settings
    return verdict


def _problem(rule: Rule, values: Values) -> Problem:
    return Problem(rule.what.format_map(values), why=rule.why, next=rule.next, key=rule.field)


def _is_for_others(declared: Declared, values: Values) -> bool:
    """True for a value that was changed although the training method has no use for it."""
    methods = declared.methods
    return (
        bool(methods)
        and values["training_method"] not in methods
        and values[declared.key] != DEFAULTS[declared.key]
    )


def _not_for(declared: Declared, values: Values) -> Problem:
    others = [METHODS[name].what for name in declared.methods]
    return Problem(
        f"{declared.key} has no use where {METHODS[values['training_method']].what} is trained",
        why=f"it is for training {' or '.join(others)}",
        next=f"leave {declared.key} out, or set training_method to {' or '.join(declared.methods)}",
        key=declared.key,
    )


def _has_no_effect(declared: Declared, values: Values) -> bool:
    """True for a value that was changed although the form would hide its field."""
    if values[declared.key] == DEFAULTS[declared.key]:
        return False
    return any(values[key] not in wanted for key, wanted in declared.info.show_if)


def _idle(declared: Declared) -> Problem:
    needs = " and ".join(f"{key} = {_spell(wanted)}" for key, wanted in declared.info.show_if)
    return Problem(f"{declared.key} only counts with {needs}", key=declared.key)


def _spell(wanted: tuple[Any, ...]) -> str:
    return " or ".join(
        "true" if value is True else "false" if value is False else str(value) for value in wanted
    )
