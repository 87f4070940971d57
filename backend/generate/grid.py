"""Grids of pictures: what stands on their axes, and the folder that keeps one.

A grid is a folder. ``grid.json`` says what is to be drawn, ``cells/`` holds one picture for each
cell that is finished, ``sheet.png`` all of them with their labels, ``votes.jsonl`` what people
preferred. Nothing else is remembered, so that a grid goes on wherever it was left.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.errors import InputError, Problem
from backend.generate import samplers
from backend.generate.grid_files import WITH_STRENGTH, FileKind, acting, at_strength, kind_of, lacks
from backend.generate.request import Request, pick_seed
from backend.wholefile import write_text

PLAN = "grid.json"
CELLS = "cells"
INPUTS = "inputs"
SHEET = "sheet.png"
MAX_CELLS = 2000
MAX_AXES = 3


@dataclass(frozen=True)
class AxisKind:
    """What an axis may vary."""

    key: str
    field: str
    """Of a request; '' for what stands outside of it."""
    label: str
    """A value in a few words, with ``{}`` for it."""
    whole: bool = False
    low: float = float("-inf")
    high: float = float("inf")


AXES: Mapping[str, AxisKind] = {
    kind.key: kind
    for kind in (
        AxisKind("file", "", "{}"),
        AxisKind("strength", "", "\u00d7 {:g}", low=-10, high=10),
        AxisKind("prompt", "prompt", "{}"),
        AxisKind("seed", "seed", "seed {}", whole=True, low=0, high=2**63 - 1),
        AxisKind("sampler", "sampler", "{}"),
        AxisKind("steps", "steps", "{} steps", whole=True, low=1, high=1000),
        AxisKind("scale", "scale", "CFG {:g}", low=0, high=100),
    )
}
"""In the order in which an axis is offered."""


@dataclass(frozen=True)
class Axis:
    """One direction of a grid."""

    key: str
    values: tuple[Any, ...]

    def labels(self) -> list[str]:
        """Each value in a few words; files by their names, with their folder where names are the same."""
        kind = AXES[self.key]
        if self.key == "file":
            return _file_labels([Path(value) for value in self.values])
        if self.key == "sampler":
            return [samplers.SAMPLERS[value].label for value in self.values]
        return [kind.label.format(value) for value in self.values]


Place = tuple[int, ...]
"""Where a cell stands: its index on each axis."""


@dataclass(frozen=True)
class Grid:
    """What a grid draws: one request, varied along up to three axes (columns, rows, blocks)."""

    model: str
    request: Request
    axes: tuple[Axis, ...]
    name: str = ""
    encoders: Mapping[str, str] = field(default_factory=dict)
    file_kind: FileKind = ""
    """What the files on the axis ``file`` are."""

    @property
    def places(self) -> list[Place]:
        """All cells, those of one file after another, so that each is loaded once."""
        spans = [range(len(axis.values)) for axis in self.axes]
        first = next((i for i, axis in enumerate(self.axes) if axis.key == "file"), None)
        # Rows before columns: what is read first is drawn first.
        order = sorted(range(len(spans)), key=lambda i: (i != first, -i))
        found: list[Place] = []
        for indices in itertools.product(*(spans[i] for i in order)):
            by_axis = dict(zip(order, indices, strict=True))
            found.append(tuple(by_axis[i] for i in range(len(spans))))
        return found

    def cell(self, place: Place) -> tuple[str, Request]:
        """The base model and the request that a cell is drawn with."""
        values = {axis.key: axis.values[i] for axis, i in zip(self.axes, place, strict=True)}
        changes = {AXES[key].field: value for key, value in values.items() if AXES[key].field}
        model = str(values["file"]) if self.file_kind == "base" else self.model
        request = replace(self.request, **changes, count=1, batch=1)
        if "file" in values:
            request = acting(request, self.file_kind, str(values["file"]), self.files)
        if "strength" in values:
            request = at_strength(request, self.file_kind, float(values["strength"]))
        return model, request

    @property
    def files(self) -> tuple[str, ...]:
        """Those on the axis ``file``."""
        return next((axis.values for axis in self.axes if axis.key == "file"), ())

    def label(self, place: Place) -> str:
        """A cell in words: the labels of its values."""
        return ", ".join(axis.labels()[i] for axis, i in zip(self.axes, place, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "model": self.model,
            "encoders": dict(self.encoders),
            "file_kind": self.file_kind,
            "axes": [asdict(axis) for axis in self.axes],
            "request": self.request.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Grid:
        """The grid of :meth:`as_dict`'s data. Raises KeyError or TypeError for data of another shape."""
        return cls(
            model=data["model"],
            request=Request.from_dict(data["request"]),
            axes=tuple(Axis(axis["key"], tuple(axis["values"])) for axis in data["axes"]),
            name=data.get("name", ""),
            encoders=data.get("encoders", {}),
            file_kind=data.get("file_kind", ""),
        )


def planned(
    model: str,
    request: Request,
    axes: Sequence[Axis],
    name: str = "",
    encoders: Mapping[str, str] | None = None,
) -> Grid:
    """A grid that can be drawn, with its seed decided.

    Raises:
        InputError: every problem of its axes: unknown, twice, without values, files of two kinds or
            without what they need, a strength without a network, too many cells.
    """
    problems = [problem for axis in axes for problem in _axis_problems(axis)]
    keys = [axis.key for axis in axes]
    problems += [
        Problem(f"'{key}' stands on two axes", key="axes")
        for key in dict.fromkeys(keys)
        if keys.count(key) > 1
    ]
    if not axes or len(axes) > MAX_AXES:
        problems.append(Problem(f"a grid has one to {MAX_AXES} axes, not {len(axes)}", key="axes"))
    if problems:
        raise InputError(problems)
    cells = 1
    for axis in axes:
        cells *= len(axis.values)
    if cells > MAX_CELLS:
        raise InputError(
            f"the grid has {cells} cells, more than {MAX_CELLS}", next="Take values away.", key="axes"
        )
    files = next((axis.values for axis in axes if axis.key == "file"), ())
    kind = kind_of(files)
    # A file on the axis is not also to act from the stack in every cell.
    request = replace(request, loras=tuple(lora for lora in request.loras if lora.path not in files))
    prompts = next((axis.values for axis in axes if axis.key == "prompt"), (request.prompt,))
    if problems := lacks(kind, files, request, prompts):
        raise InputError(problems)
    if "strength" in keys and kind not in WITH_STRENGTH and not request.loras:
        raise InputError(
            "a strength needs a LoRA",
            next="Put LoRA files on an axis, or choose one in the form.",
            key="axes",
        )
    seed = request.seed if request.seed is not None and request.seed >= 0 else pick_seed()
    ready = replace(request, seed=seed, count=1, batch=1)
    return Grid(model, ready, tuple(axes), name, dict(encoders or {}), kind)


def _axis_problems(axis: Axis) -> Iterable[Problem]:
    kind = AXES.get(axis.key)
    if kind is None:
        yield Problem(f"'{axis.key}' cannot stand on an axis", next=f"Choose one of: {', '.join(AXES)}.")
        return
    if not axis.values:
        yield Problem(f"the axis '{axis.key}' has no values", key="axes")
    for value in axis.values:
        if axis.key == "sampler" and value not in samplers.SAMPLERS:
            yield Problem(f"there is no sampler '{value}'", key="axes")
        if axis.key == "file" and not Path(value).exists():
            yield Problem(f"there is no file {value}", next="Choose a file that exists.", key="axes")
        if kind.low > float("-inf") and not kind.low <= value <= kind.high:
            yield Problem(f"{axis.key} must be from {kind.low:g} to {kind.high:g}, not {value}", key="axes")


# -- folders -------------------------------------------------------------------


@dataclass(frozen=True)
class GridFolder:
    """A grid and where it is kept."""

    path: Path
    grid: Grid

    @property
    def id(self) -> str:
        return self.path.name

    def picture(self, place: Place) -> Path:
        """Where a cell's picture lies when it is finished."""
        return self.path / CELLS / ("-".join(map(str, place)) + ".png")

    def finished(self) -> list[Place]:
        """The cells that need not be drawn any more. Pictures are there whole or not at all."""
        return [place for place in self.grid.places if self.picture(place).is_file()]

    def missing(self) -> list[Place]:
        """The cells that are still to be drawn, in the order of drawing."""
        return [place for place in self.grid.places if not self.picture(place).is_file()]


def create(root: Path, grid: Grid) -> GridFolder:
    """A new folder below ``root``, with copies of the pictures that the grid starts from.

    Raises:
        InputError: one of those pictures cannot be read.
        OSError: the folder cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = _new_folder(root, time.strftime("%Y%m%d-%H%M%S"), grid.name)
    try:
        kept = replace(grid, request=_with_copies(grid.request, path / INPUTS))
        write_text(path / PLAN, json.dumps(kept.as_dict(), ensure_ascii=False, indent=1))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return GridFolder(path, kept)


def opened(path: Path) -> GridFolder:
    """The grid in a folder.

    Raises:
        InputError: there is none, or its plan cannot be read.
    """
    plan = path / PLAN
    try:
        grid = Grid.from_dict(json.loads(plan.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"there is no grid in {path}", why=error.strerror or str(error), next="Choose its folder."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the plan of this grid cannot be read: {plan}", why=str(error)) from None
    return GridFolder(path, grid)


def listed(root: Path) -> list[GridFolder]:
    """The grids below ``root``, the newest first; folders whose plan cannot be read are left out."""
    found: list[GridFolder] = []
    folders = (path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ()
    for path in sorted(folders, key=lambda path: path.name, reverse=True):
        try:
            found.append(opened(path))
        except InputError:
            continue
    return found


def _new_folder(root: Path, stamp: str, name: str) -> Path:
    from backend.generate.pictures import safe_name

    words = safe_name(name).replace(" ", "-")[:40] if name.strip() else "grid"
    for number in itertools.count(1):
        path = root / (f"{stamp}-{words}" + (f"-{number}" if number > 1 else ""))
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
    raise AssertionError


def _with_copies(request: Request, folder: Path) -> Request:
    """The request with its pictures copied to ``folder``, so that it can be drawn again later."""

    def copied(path: str, name: str) -> str:
        if not path:
            return ""
        source = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return str(shutil.copyfile(source, folder / (name + source.suffix)))
        except OSError as error:
            raise InputError(
                f"the picture cannot be read: {path}", why=error.strerror or str(error), key=name
            ) from None

    guides = (
        replace(guide, image=copied(guide.image, f"guide-{number}"))
        for number, guide in enumerate(request.guides, 1)
    )
    return replace(
        request,
        image=copied(request.image, "image"),
        mask=copied(request.mask, "mask"),
        guides=tuple(guides),
    )


def _file_labels(files: Sequence[Path]) -> list[str]:
    stems = [file.stem if file.is_file() or file.suffix else file.name for file in files]
    return [
        f"{file.parent.name}/{stem}" if stems.count(stem) > 1 else stem
        for file, stem in zip(files, stems, strict=True)
    ]
