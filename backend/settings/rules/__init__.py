"""Rules between options, as data: what may not stand together, what has no effect, what follows.

Trainer and form judge by the same table. A rule of kind ``error`` stops a run before it starts, a
``note`` is shown, and a ``change`` is shown and made. Rules are judged in order, each on what the
changes before it left. Each module holds the rules of one concern.
"""

from __future__ import annotations

from backend.settings.rules import (
    caching,
    dataset,
    files,
    launch,
    length,
    loss,
    network,
    precision,
    rates,
    results,
    sd3,
    sharding,
    small,
)
from backend.settings.rules.rule import Rule, RuleKind

__all__ = ["RULES", "Rule", "RuleKind"]

RULES: tuple[Rule, ...] = (
    *small.RULES,
    *files.RULES,
    *dataset.RULES,
    *caching.RULES,
    *network.RULES,
    *rates.RULES,
    *length.RULES,
    *loss.RULES,
    *precision.RULES,
    *results.RULES,
    *launch.RULES,
    *sd3.RULES,
    *sharding.RULES,
)
"""All rules, in the order in which they are judged."""
