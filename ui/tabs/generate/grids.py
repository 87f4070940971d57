"""Grids on the page: planning, drawing, looking at them, and the blind vote."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path
from random import SystemRandom
from typing import Any

from backend.errors import InputError, Problem
from backend.generate import grid as grids
from backend.generate import grid_votes as voting
from backend.generate.grid import AXES, Axis, Grid, GridFolder, planned
from backend.generate.grid_files import WITH_STRENGTH
from backend.generate.grid_values import axis_of
from backend.generate.protocol import ENCODERS, request_of
from backend.jobs.runs import Run, find_run, list_runs
from backend.system.identify import identify
from ui.i18n import said, t
from ui.studio import Job, Order
from ui.tabs.generate.drawing import Desk
from ui.tabs.generate.files import trained_files
from ui.tabs.generate.inputs import file_url
from ui.tabs.generate.using import UseCalls
from ui.thumbnails import thumbnail

_RUNS = 20
_CHECKPOINTS = 40
_STRENGTHS = "0.6, 0.8, 1"
_SEEDS = "1, 2"
_NUMBERED = re.compile(r"(\d+)$")
_SHOWN = 60


class GridCalls:
    """What the server does for grids. Every method takes and gives JSON."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @property
    def root(self) -> Path:
        return self.desk.outputs / "grids"

    def list_grids(self, data: dict[str, Any]) -> dict[str, Any]:
        """Axes to choose from, runs to compare the checkpoints of, and the grids there are."""
        found = [self._summary(folder) for folder in grids.listed(self.root)[:_SHOWN]]
        runs = [run for run in list_runs(self.desk.context.runs) if run.kind == "train"][:_RUNS]
        files = [(run, _checkpoints(run)) for run in runs]
        offered = [
            {"id": run.id, "name": run.name, "files": len(made)} for run, made in files if _axes_of(made)
        ]
        return {"axes": list(AXES), "grids": found, "runs": offered}

    def plan_run(self, data: dict[str, Any]) -> dict[str, Any]:
        """The axes of "which epoch is best": a run's checkpoints, strengths, two seeds; and the form with
        the model, the size and the words of the run."""
        run = find_run(self.desk.context.runs, str(data.get("run") or ""))
        files = _checkpoints(run) if run else []
        axes = _axes_of(files)
        if run is None or not axes:
            raise InputError(t("gen.no_checkpoints"))
        values = UseCalls(self.desk.context).compare(run, files[-1], str(data.get("prompt") or ""))
        return {"axes": axes, "name": run.name, "values": values}

    def count_cells(self, data: dict[str, Any]) -> dict[str, Any]:
        """How many pictures the axes make."""
        cells = 1
        for axis in self._axes(data):
            cells *= len(axis.values)
        return {"cells": cells}

    def start_grid(self, data: dict[str, Any]) -> dict[str, Any]:
        """Make a grid's folder out of the form and its axes, and draw it."""
        values = data.get("values") or {}
        axes = self._axes(data)
        found, request = self.desk.ready(_single(values))
        encoders = {key: found[key] for key in ENCODERS if found[key]}
        made = planned(found["model"], request_of(request), axes, str(data.get("name") or "")[:80], encoders)
        self.desk.keep(values)
        self.desk.remember(found)
        folder = grids.create(self.root, made)
        self._draw(folder)
        return self.show_grid({"grid": folder.id})

    def continue_grid(self, data: dict[str, Any]) -> dict[str, Any]:
        """Draw what a grid lacks."""
        folder = self.folder(data)
        if not self._is_wanted(folder):
            self._draw(folder)
        return self.show_grid(data)

    def show_grid(self, data: dict[str, Any]) -> dict[str, Any]:
        """A grid with its finished cells and what was voted."""
        folder = self.folder(data)
        grid = folder.grid
        cells = {"-".join(map(str, place)): self._cell(folder, place) for place in folder.finished()}
        sheet = folder.path / grids.SHEET
        return {
            **self._summary(folder),
            "axes": [{"key": axis.key, "labels": _labels(axis)} for axis in grid.axes],
            "cells": cells,
            "ratio": (grid.request.width or 1) / (grid.request.height or grid.request.width or 1),
            "sheet": f"{file_url(sheet)}?{sheet.stat().st_mtime_ns}" if sheet.is_file() else "",
            "folder": str(folder.path),
            "votes": self._result(folder),
        }

    def _axes(self, data: dict[str, Any]) -> list[Axis]:
        """The axes a page wrote; those without any text are not meant."""
        written = [axis for axis in data.get("axes") or () if str(axis.get("text") or "").strip()]
        found = [axis_of(str(axis.get("key")), str(axis["text"])) for axis in written]
        if not found:
            raise InputError(Problem(t("gen.no_axes"), next=t("gen.no_axes_next"), key="axes"))
        return found

    def _draw(self, folder: GridFolder) -> None:
        total = len(folder.grid.places)
        order = Order({"op": "grid", "folder": str(folder.path), "preview": True})
        title = folder.grid.name or t("gen.grid")
        self.desk.studio.add(Job((order,), title, total, "grid", folder.id, folder.grid.request.seed))

    def _is_wanted(self, folder: GridFolder) -> bool:
        """Whether it is being drawn, or waits for it."""
        view = self.desk.studio.view()
        waiting = [job.grid for job in self.desk.studio.waiting()]
        return folder.id in waiting or (view.busy and view.grid == folder.id)

    def folder(self, data: dict[str, Any]) -> GridFolder:
        """The grid that a page names. Raises InputError: there is none of that name."""
        id = str(data.get("grid") or "")
        if not id or id != Path(id).name or id in (".", ".."):
            raise InputError(t("gen.no_grid"))
        return grids.opened(self.root / id)

    def _summary(self, folder: GridFolder) -> dict[str, Any]:
        done, cells = len(folder.finished()), len(folder.grid.places)
        return {
            "id": folder.id,
            "name": folder.grid.name or t("gen.grid"),
            "prompt": folder.grid.request.prompt[:200],
            "done": done,
            "total": cells,
            "wanted": self._is_wanted(folder),
            "can_vote": len(voting.candidates(folder.grid)) > 1,
        }

    def _cell(self, folder: GridFolder, place: grids.Place) -> dict[str, Any]:
        path = folder.picture(place)
        small = thumbnail(path)
        return {"url": file_url(path), "small": file_url(small) if small else "", "path": str(path)}

    def _result(self, folder: GridFolder) -> dict[str, Any] | None:
        """Standings with their labels; None while nobody voted."""
        votes = voting.read(folder)
        if not votes:
            return None
        competing = voting.candidates(folder.grid)
        found = voting.fit(len(competing), votes)
        rows = [
            {
                "label": voting.candidate_label(folder.grid, competing[row.candidate]),
                **{key: round(getattr(row, key), 4) for key in ("wins", "votes", "chance", "low", "high")},
            }
            for row in found.standings
        ]
        lead = [
            round(x, 4) for x in (found.chance_over_second, found.low_over_second, found.high_over_second)
        ]
        return {"rows": rows, "votes": found.votes, "clear": found.clear, "lead": lead}


class VoteCalls:
    """The blind vote: a page sees two pictures and no word about what they are."""

    def __init__(self, calls: GridCalls) -> None:
        self._calls = calls
        self._asked: dict[str, tuple[str, voting.Pair]] = {}
        self._random = SystemRandom()

    def next_pair(self, data: dict[str, Any]) -> dict[str, Any]:
        """Two pictures of one prompt and seed. Their names and addresses tell nothing."""
        folder = self._calls.folder(data)
        votes = voting.read(folder)
        pair = voting.next_pair(folder, votes, self._random)
        if pair is None:
            raise InputError(t("gen.no_pair"))
        token = secrets.token_hex(8)
        self._asked = {**dict(list(self._asked.items())[-20:]), token: (folder.id, pair)}
        cells = (pair.first_cell, pair.second_cell)
        pictures = [_address(folder.picture(cell)) for cell in cells]
        return {
            "pair": token,
            "pictures": pictures,
            "prompt": _prompt(folder.grid, cells[0]),
            "votes": len(votes),
        }

    def vote(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep which of the two is better (``first``, ``second``, ``same``), then ask the next."""
        id, pair = self._asked.pop(str(data.get("pair")), ("", None))
        if pair is not None and id == data.get("grid"):
            winners = {"first": pair.first, "second": pair.second, "same": -1}
            if data.get("choice") in winners:
                vote = voting.Vote(pair.first, pair.second, winners[str(data["choice"])])
                voting.add(self._calls.folder(data), vote)
        return self.next_pair(data)


def _labels(axis: Axis) -> list[str]:
    """What stands beside a row or above a column; numbers are named in the reader's language."""
    labels = axis.labels()
    return [said(label) for label in labels] if axis.key in ("seed", "steps") else labels


def _checkpoints(run: Run) -> list[Path]:
    """A run's files in the order in which they were made, the result last."""
    found = trained_files(run, _CHECKPOINTS)

    def order(path: Path) -> tuple[int, float]:
        number = _NUMBERED.search(path.stem)
        return (int(number[1]), 0.0) if number else (2**31, path.stat().st_mtime)

    return sorted(found, key=order)


def _axes_of(files: list[Path]) -> list[dict[str, str]]:
    """What tells the files of a run apart; [] where they cannot stand on an axis."""
    try:
        kind = identify(files[0]).kind if files else ""
    except InputError:  # damaged; who draws with it is told
        return []
    if kind not in ("lora", "base", "embedding", "lllite"):
        return []
    strengths = [{"key": "strength", "text": _STRENGTHS}] if kind in WITH_STRENGTH else []
    return [
        {"key": "file", "text": "\n".join(map(str, files))},
        *strengths,
        {"key": "seed", "text": _SEEDS},
    ]


def _single(values: dict[str, Any]) -> dict[str, Any]:
    """The form as a cell of a grid is drawn: one picture, with its networks."""
    return {**values, "compare": False, "count": 1, "batch": 1}


def _prompt(grid: Grid, place: grids.Place) -> str:
    """What both pictures of a pair were asked to show."""
    return grid.cell(place)[1].prompt


def _address(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
