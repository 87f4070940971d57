"""Collects what is wrong and what is worth telling while a dataset is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.errors import InputError, Problem

_Place = tuple[str, str | None]
"""A kind, and where it was met."""
SHOWN = 20
"""Of one kind and place that are told one by one; the rest is counted."""


@dataclass
class Report:
    """Problems stop training, notes do not. Both are shown together, never one per try.

    With a ``kind``, what is told of many files alike becomes one line with their number after the first few.
    """

    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[Problem] = field(default_factory=list[Problem])
    _counts: dict[_Place, int] = field(default_factory=dict[_Place, int], repr=False)
    _summaries: dict[_Place, Problem] = field(default_factory=dict[_Place, Problem], repr=False)

    def problem(self, what: str, *, kind: str = "", **parts: str | None) -> None:
        self._tell(self.problems, what, kind, parts)

    def note(self, what: str, *, kind: str = "", **parts: str | None) -> None:
        self._tell(self.notes, what, kind, parts)

    def _tell(self, told: list[Problem], what: str, kind: str, parts: Mapping[str, str | None]) -> None:
        problem = Problem(what, **parts)  # type: ignore[arg-type]
        place = (kind, parts.get("where"))
        number = self._counts[place] = self._counts.get(place, 0) + 1 if kind else 0
        if number <= SHOWN:
            told.append(problem)
            return
        before, now = self._summaries.get(place), _more(problem, number - SHOWN)
        if before in told:
            told.remove(before)
        told.append(now)
        self._summaries[place] = now

    def raise_if_any(self) -> None:
        """Raises :class:`InputError` with all problems, each once."""
        if self.problems:
            raise InputError(dict.fromkeys(self.problems))


def _more(problem: Problem, number: int) -> Problem:
    """In place of those that are not told one by one any more; ``problem`` is the last of them."""
    return Problem(
        f"{number} more of this kind, the last one: {problem.what}",
        where=problem.where,
        next=problem.next,
        key=problem.key,
    )


def listing(names: Iterable[str], limit: int = 10) -> str:
    """'a.png, b.png and 3 more'."""
    found: Sequence[str] = list(names)
    shown = ", ".join(found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"


def count(number: int, one: str, many: str | None = None) -> str:
    """'1 picture', '3 pictures'."""
    return f"{number} {one if number == 1 else many or one + 's'}"
