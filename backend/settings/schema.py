"""The options as plain data, for the form."""

from __future__ import annotations

from functools import cache
from typing import Any

from backend.settings.declare import SECTIONS, Declared, declarations
from backend.settings.rules import RULES, Rule
from backend.settings.settings import DEFAULTS


@cache
def schema() -> dict[str, Any]:
    """Groups of options in order, and the rules between them; the same at every call.

    An option has ``key, type, default, label, help, level``, and of ``optional, unit, min, max,
    min_open, max_open, choices, choice_titles, open, suggestions, path, show_if, multiline, secret, per_run,
    families, methods`` those that say something. Callers must not change what is returned.
    """
    groups = [
        {
            "id": name,
            "title": section.title,
            "help": section.__doc__,
            "options": [
                option_schema(one, DEFAULTS[one.key])
                for one in declarations().values()
                if one.section == name
            ],
        }
        for name, section in SECTIONS.items()
    ]
    return {"groups": groups, "rules": [_rule(rule) for rule in RULES]}


def option_schema(declared: Declared, default: Any) -> dict[str, Any]:
    """One option as :func:`schema` gives it."""
    info, bounds = declared.info, declared.bounds
    always = {
        "key": declared.key,
        "type": declared.kind,
        "default": default,
        "label": info.label,
        "help": info.help,
        "level": info.level,
    }
    sometimes = {
        "optional": declared.optional,
        "unit": info.unit,
        "min": bounds.low,
        "max": bounds.high,
        "min_open": bounds.low_open,
        "max_open": bounds.high_open,
        "choices": list(declared.choices),
        "choice_titles": list(info.choice_titles),
        "open": info.open,
        "suggestions": list(info.suggestions),
        "path": info.path,
        "show_if": [[key, list(wanted)] for key, wanted in info.show_if],
        "multiline": info.multiline,
        "secret": info.secret,
        "per_run": info.per_run,
        "families": list(info.families),
        "methods": list(declared.methods),
    }
    return always | {
        name: value for name, value in sometimes.items() if value not in (None, "", []) and value is not False
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "kind": rule.kind,
        "key": rule.field,
        "keys": list(rule.keys),
        "when": _lists(rule.when),
        "what": rule.what,
        "next": rule.next,
    }


def _lists(condition: Any) -> Any:
    return [_lists(part) for part in condition] if isinstance(condition, tuple) else condition
