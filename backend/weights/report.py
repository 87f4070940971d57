"""What a job on files did, for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.settings.paths import name_problem, write_problem

_SHOWN = 12
"""Names of dropped parts that the text has; JSON has all."""


@dataclass(frozen=True)
class Part:
    """One module (or tensor) of the result."""

    name: str
    rank: int | None = None
    error: float | None = None
    """Norm of what was lost over the norm of what was to be kept; 0 is exact, None does not apply."""
    values: dict[str, float | int | str] = field(default_factory=lambda: dict[str, "float | int | str"]())
    """Further facts for the verbose table."""


@dataclass(frozen=True)
class Dropped:
    """Something of an input that is not in the result."""

    name: str
    why: str


@dataclass
class Report:
    """The outcome of a job."""

    job: str
    output: Path
    kept: list[Part] = field(default_factory=lambda: list[Part]())
    dropped: list[Dropped] = field(default_factory=lambda: list[Dropped]())
    notes: list[str] = field(default_factory=lambda: list[str]())
    facts: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    """Further facts by name."""

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {**asdict(self), "output": str(self.output), "error": self.mean_error()}

    def mean_error(self) -> float | None:
        """Root mean square of the parts' errors, None when no part has one."""
        errors = [part.error for part in self.kept if part.error is not None]
        return math.sqrt(sum(error * error for error in errors) / len(errors)) if errors else None

    def text(self, verbose: bool = False) -> str:
        """The report as lines for a terminal; ``verbose`` adds a line for each part."""
        lines = [_part_line(part) for part in self.kept] if verbose else []
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"{name}: {value}" for name, value in self.facts.items()]
        error = self.mean_error()
        tail = f", reconstruction error {error:.3%}" if error is not None else ""
        lines.append(f"{len(self.kept)} parts kept, {len(self.dropped)} dropped{tail}")
        lines += _dropped_lines(self.dropped)
        return "\n".join([*lines, f"wrote {self.output}"])


def _part_line(part: Part) -> str:
    cells = [f"{part.name:<75}"]
    if part.rank is not None:
        cells.append(f"rank {part.rank:>4}")
    if part.error is not None:
        cells.append(f"error {part.error:8.3%}")
    cells += [f"{name} {_cell(value)}" for name, value in part.values.items()]
    return "  ".join(cells)


def _cell(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _dropped_lines(dropped: Sequence[Dropped]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for item in dropped:
        reasons.setdefault(item.why, []).append(item.name)
    lines: list[str] = []
    for why, names in reasons.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        lines.append(f"dropped ({why}): {', '.join(names[:_SHOWN])}{more}")
    return lines


SUFFIXES = (".safetensors", ".ckpt", ".pt")


def check_output(path: Path | None, inputs: Iterable[Path], overwrite: bool, key: str = "save_to") -> Path:
    """The output's path, when it may be written to.

    Raises:
        InputError: none given, it is one of the inputs, a folder, of another kind, there already, or
            nothing can be written there.
    """
    if path is None or not str(path).strip():
        raise InputError(f"--{key} is missing", next="name the file to write", key=key)
    real = path.expanduser().resolve()
    for source in inputs:
        if real == source.expanduser().resolve():
            raise InputError(
                f"the output is the input {source.name}",
                where=str(path),
                why="an input is never changed",
                next="choose another name for the output",
                key=key,
            )
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"cannot write a file that ends in {path.suffix or 'nothing'}",
            where=str(path),
            next=f"end the name in one of {', '.join(SUFFIXES)}",
            key=key,
        )
    if problem := name_problem(path, key):
        raise InputError(problem)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file name is needed", key=key)
    if path.exists() and not overwrite:
        raise InputError(
            f"{path.name} is there already",
            where=str(path),
            next="choose another name, or allow to replace it (--overwrite)",
            key=key,
        )
    if problem := write_problem(path.expanduser().parent, key):
        raise InputError(problem)
    return path.expanduser()
