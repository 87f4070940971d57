"""Drawing what a grid still lacks, cell by cell, with the model that stays warm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import Problem
from backend.generate.faults import problems_of
from backend.generate.grid import GridFolder, Place
from backend.generate.grid_sheet import write_sheet

if TYPE_CHECKING:
    from backend.generate.engine import Drawn
    from backend.generate.request import Request

DrawOne = Callable[[Path, Mapping[str, Path], "Request"], "Drawn"]
"""Draws one picture: with which base model and text encoders, and what."""
Text = Callable[[Path, "Drawn"], str]
"""The text inside a picture's file, by its base model."""


@dataclass(frozen=True)
class Cell:
    """One cell that was just drawn, or could not be."""

    place: Place
    label: str
    path: Path | None
    """None when it could not be drawn; then ``problems`` says why."""
    problems: tuple[Problem, ...] = ()
    text: str = ""
    seed: int | None = None


def draw_missing(
    folder: GridFolder, draw: DrawOne, text: Text, on_cell: Callable[[Cell], None]
) -> list[Cell]:
    """Draw every cell that is not finished, then the contact sheet. Returns the cells that failed.

    A cell that cannot be drawn is told and left out; the next time it is tried again. Raises
    ``engine.Stopped`` when ``draw`` does; the sheet then shows what there is.
    """
    encoders = {key: Path(path) for key, path in folder.grid.encoders.items()}
    failed: list[Cell] = []
    try:
        for place in folder.missing():
            cell = _draw_cell(folder, place, encoders, draw, text)
            if cell.path is None:
                failed.append(cell)
            on_cell(cell)
    finally:
        if folder.finished():
            write_sheet(folder)
    return failed


def _draw_cell(
    folder: GridFolder, place: Place, encoders: Mapping[str, Path], draw: DrawOne, text: Text
) -> Cell:
    from backend.generate import pictures
    from backend.generate.engine import Stopped

    label, (model, request) = folder.grid.label(place), folder.grid.cell(place)
    try:
        drawn = draw(Path(model), encoders, request)
        inside = text(Path(model), drawn)
        path = pictures.save(drawn.image, folder.picture(place), inside)
    except Stopped:
        raise
    except Exception as error:
        return Cell(place, label, None, tuple(problems_of(error)))
    problems = (Problem(drawn.fault, where=label),) if drawn.fault else ()
    return Cell(place, label, path, problems, inside, drawn.request.seed)
