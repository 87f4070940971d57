"""What the page tells before a start: which model, which pictures, how long, and what is wrong.

Everything comes from file headers and settings, so it takes milliseconds and no torch.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.settings import Settings, check_files, declarations
from backend.settings.check import judge
from backend.settings.length import run_length
from backend.settings.optimizers import find, missing_library
from backend.system.identify import ModelFile, identify
from ui.bind import read
from ui.calls import problem_dicts
from ui.i18n import t

MODEL = "pretrained_model_name_or_path"
_FRESH = 20.0
"""Seconds that a look at a folder of pictures counts as fresh."""
_SIDES = {"sd1": 512, "sd2": 512, "sdxl": 1024, "sd3": 1024}
"""Family -> side of the pictures that its models were made with, px; SD 2.x that predicts v: 768."""


@dataclass(frozen=True)
class Found:
    """All that is known of a form's values."""

    settings: Settings
    model: ModelFile | None
    plan: DatasetPlan | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]

    @property
    def family(self) -> str | None:
        return self.model.family if self.model and self.model.family != "unknown" else None


class Finder:
    """Looks at models and pictures, remembering both for a while."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, int, int], ModelFile] = {}
        self._plans: dict[str, tuple[float, DatasetPlan | InputError]] = {}
        self._lock = threading.Lock()

    def look(self, values: Mapping[str, Any], again: bool = False, files: bool = False) -> Found:
        """Everything that can be told of ``values``.

        ``again`` looks at the folders anew; ``files`` checks every path as before a start.
        """
        with self._lock:
            if again:
                self._plans.clear()
            reading = read(values)
            settings, problems = reading.settings, list(reading.problems)
            model = self._model(settings, problems)
            plan = self._plan(settings, problems)
        verdict = judge(settings, ignore=reading.wrong())
        notes = [*reading.notes, *verdict.notes, *(plan.notes if plan else ())]
        problems += check_files(settings) if files else []
        problems += _lacking(settings)
        problems = _unlike([*problems, *verdict.errors])
        return Found(settings, model, plan, tuple(problems), tuple(dict.fromkeys(notes)))

    def _model(self, settings: Settings, problems: list[Problem]) -> ModelFile | None:
        name = settings.model.pretrained_model_name_or_path
        if not name:
            return None
        try:
            found = self._identified(Path(name).expanduser())
        except InputError as error:
            problems += [_at(problem, MODEL) for problem in error.problems]
            return None
        if found.kind != "base" or not found.supported:
            problems.append(
                Problem(
                    t("train.wrong_model", title=found.title),
                    why=found.why_not,
                    next=t("train.wrong_model_next"),
                    key=MODEL,
                )
            )
        return found

    def _identified(self, path: Path) -> ModelFile:
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return identify(path)  # says what is wrong
        key = (str(path), stat.st_mtime_ns, stat.st_size)
        if key not in self._models:
            self._models[key] = identify(path)
        return self._models[key]

    def _plan(self, settings: Settings, problems: list[Problem]) -> DatasetPlan | None:
        data = settings.dataset
        if not data.train_data_dir and not data.dataset_config:
            return None
        parts = (settings.dataset, settings.caching, settings.loss)
        key = json.dumps([part.model_dump() for part in parts], default=str, sort_keys=True)
        seen = self._plans.get(key)
        if seen is None or time.monotonic() - seen[0] > _FRESH:
            seen = (time.monotonic(), _planned(settings))
            self._plans = {**dict(list(self._plans.items())[-7:]), key: seen}
        if isinstance(seen[1], InputError):
            place = "dataset_config" if data.dataset_config else "train_data_dir"
            problems += [_at(problem, place) for problem in seen[1].problems]
            return None
        return seen[1]


def _planned(settings: Settings) -> DatasetPlan | InputError:
    try:
        return build_plan(settings, verify=False)
    except InputError as error:
        return error


def _lacking(settings: Settings) -> list[Problem]:
    """The optimizer's library, where it is missing and nothing may take its place."""
    name = settings.optimizer.optimizer_type
    missing = missing_library(name)
    replaced = settings.precision.allow_fallback and find(name).replacement
    return [missing] if missing and not replaced else []


def _unlike(problems: list[Problem]) -> list[Problem]:
    """Each problem once, whoever found it first."""
    return list({(problem.key, problem.what): problem for problem in reversed(problems)}.values())[::-1]


def _at(problem: Problem, key: str) -> Problem:
    """The problem, with a field to jump to."""
    return problem if problem.key in declarations() else replace(problem, key=key)


def card(found: Found) -> dict[str, Any]:
    """The card "What was found" as plain data in the page's words."""
    return {
        "family": found.family,
        "model": _model_card(found.model, found.settings) if found.model else None,
        "data": _data_card(found.plan) if found.plan else None,
        "length": _length_card(found.settings, found.plan) if found.plan else None,
        "problems": problem_dicts(found.problems),
        "notes": problem_dicts(found.notes),
        "resolved": _resolved(found.settings),
    }


def _model_card(model: ModelFile, settings: Settings) -> dict[str, Any]:
    """``asks``: choices for ``prediction_type`` where the file does not tell; [] once it is set."""
    parts = [model.dtype, _size(model.size), model.path.name]
    side, prediction = _SIDES.get(model.family, 0), _prediction(model, settings)
    if model.family == "sd2" and prediction == "v":
        side = 768
    how = t(f"train.predicts_{prediction}") if prediction else ""
    silent = model.family == "sd2" and model.kind == "base" and prediction is None
    fits = [how, t("train.made_for", n=side) if side and model.kind == "base" and not silent else ""]
    return {
        "title": model.title,
        "detail": " · ".join(part for part in parts if part),
        "fits": " · ".join(part for part in fits if part),
        "asks": ["epsilon", "v"] if silent else [],
    }


def _prediction(model: ModelFile, settings: Settings) -> str | None:
    """What the model is taken to predict: what the settings say goes before what its file says."""
    if model.prediction == "flow":
        return "flow"
    asked = "v" if settings.model.v_parameterization else settings.model.prediction_type
    return asked or model.prediction


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B" if size else ""


def _data_card(plan: DatasetPlan) -> dict[str, Any]:
    summary = plan.summary()
    images, captioned = cast(int, summary["images"]), cast(int, summary["with_caption_file"])
    seen, reg = cast(int, summary["train_images"]), cast(int, summary["reg_images"])
    share = "all" if captioned >= images else "some" if captioned else "none"
    return {
        "images": images,
        "captions": t(f"train.captions_{share}", n=captioned),
        "repeats": t("train.repeats", n=f"{seen:,}") if seen != images else "",
        "reg": t("train.reg", n=f"{reg:,}") if reg else "",
        "buckets": summary["buckets"],
    }


def _length_card(settings: Settings, plan: DatasetPlan) -> dict[str, Any] | None:
    """Steps as the trainer will count them: epochs, when given, decide."""
    processes = settings.launch.num_processes
    batches = plan.batches_per_epoch(processes)
    if not batches:
        return None
    length = run_length(settings, batches)
    steps, per_epoch = length.steps, length.steps_per_epoch
    epochs = f"{steps / per_epoch:.1f}".removesuffix(".0")
    whole = steps % per_epoch == 0
    batch = settings.dataset.train_batch_size * length.accumulation * processes
    detail = t(
        "train.epochs_of" if whole else "train.epochs_about",
        epochs=epochs,
        steps=f"{per_epoch:,}",
        batch=batch,
    )
    return {"steps": steps, "detail": detail}


def _resolved(settings: Settings) -> dict[str, str]:
    """Path options -> where they lead on this machine."""
    flat = settings.flat()
    paths = {key: flat[key] for key, option in declarations().items() if option.info.path and flat[key]}
    return {key: _absolute(value) for key, value in paths.items()}


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().resolve())
    except (OSError, ValueError, RuntimeError):
        return path
