"""Precision, memory and speed."""

from __future__ import annotations

from backend.settings.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "two-attentions",
        "note",
        ("all", ("xformers", "set"), ("sdpa", "set")),
        "sdpa is not used: xformers is asked for as well",
        key="sdpa",
    ),
)
