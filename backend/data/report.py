"""Collects what is wrong and what is worth telling while a dataset is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from backend.errors import InputError, Problem


@dataclass
class Report:
    """Problems stop training, notes do not. Both are shown together, never one per try."""

    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[Problem] = field(default_factory=list[Problem])

    def problem(self, what: str, **parts: str | None) -> None:
        self.problems.append(Problem(what, **parts))  # type: ignore[arg-type]

    def note(self, what: str, **parts: str | None) -> None:
        self.notes.append(Problem(what, **parts))  # type: ignore[arg-type]

    def raise_if_any(self) -> None:
        """Raises :class:`InputError` with all problems, each once."""
        if self.problems:
            raise InputError(dict.fromkeys(self.problems))


def listing(names: Iterable[str], limit: int = 10) -> str:
    """'a.png, b.png and 3 more'."""
    found: Sequence[str] = list(names)
    shown = ", ".join(found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"


def count(number: int, one: str, many: str | None = None) -> str:
    """'1 picture', '3 pictures'."""
    return f"{number} {one if number == 1 else many or one + 's'}"
