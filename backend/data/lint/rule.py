"""The shape of a rule: what it looks for, and what cures it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backend.data.lint.fixes import Fix
from backend.data.lint.survey import Item, Survey
from backend.data.lint.types import Severity


@dataclass(frozen=True)
class Hit:
    """One file that breaks a rule."""

    path: Path
    detail: str = ""
    item: Item | None = None
    """The picture it belongs to."""
    found: str = ""
    """A piece of text that the cure needs."""
    severity: Severity | None = None
    """Where it is not the rule's own."""


def hit(item: Item, detail: str = "", found: str = "", severity: Severity | None = None) -> Hit:
    """A hit of a picture itself."""
    return Hit(item.path, detail, item, found, severity)


Find = Callable[[Survey], Iterable[Hit]]
Cure = Callable[[Survey, list[Hit]], Fix | None]


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules."""

    id: str
    severity: Severity
    one: str
    """Title after a count of one: 'picture is cut off'."""
    many: str
    find: Find
    cure: Cure | None = None
    keys: tuple[str, ...] = ()
