"""Everything that can be known before a model is loaded, with all problems in one list."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backend import settings as settings_package
from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.errors import AtelierError, InputError, Problem
from backend.families import FAMILIES, default_resolution
from backend.settings import Settings
from backend.settings.optimizers import find, missing_library
from backend.system.identify import ModelFile, identify, require_base
from backend.train import zero
from backend.train.checkpoints import seed_of
from backend.train.family_rules import (
    asked_prediction,
    prediction_notes,
    require_parts,
    require_sizes,
    require_suited,
)
from backend.train.hub import with_local_state
from backend.train.modelspec import thumbnail
from backend.train.team import require_several
from backend.train.tracking import check_trackers
from backend.train.word_rules import require_word

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """Settings as they will be used, and what they lead to."""

    settings: Settings
    plan: DatasetPlan
    base: ModelFile
    notes: tuple[Problem, ...]


def prepare(settings: Settings, *, verify: bool = True) -> Prepared:
    """Check settings and files and measure the dataset, without loading anything heavy.

    Raises:
        InputError: with every problem found, of settings, files, model and pictures alike.
    """
    settings = with_local_state(settings)
    verdict = settings_package.check(settings)
    settings, problems, notes = verdict.settings, list(verdict.errors), list(verdict.notes)
    problems += settings_package.check_files(settings)
    _collect(problems, lambda: check_trackers(settings))
    known = any(problem.key == "pretrained_model_name_or_path" for problem in problems)
    base = None if known else _collect(problems, lambda: _base(settings))
    _collect(problems, lambda: _start_weights(settings, base))
    _collect(problems, lambda: _vae_file(settings))
    if base is not None:
        notes += _collect(problems, lambda: require_suited(settings, base)) or []
        notes += prediction_notes(settings, base)
        _collect(problems, lambda: require_parts(settings, base))
    _collect(problems, lambda: _thumbnail(settings))
    _collect(problems, lambda: require_several(settings))
    _collect(problems, lambda: zero.require(settings))
    _collect(problems, lambda: _schedule_class(settings))
    _collect(problems, lambda: _optimizer_class(settings))
    size = default_resolution(base, asked_prediction(settings.model)) if base else 512
    before = tuple(problems)
    plan = _collect(problems, lambda: build_plan(settings, verify=verify, default_resolution=size))
    problems = [*before, *_news(before, problems[len(before) :])]
    if base is not None and plan is not None:
        _collect(problems, lambda: require_sizes(plan, base))
    if plan is not None:
        notes += _collect(problems, lambda: require_word(settings, plan)) or []
        told = {problem.key for problem in problems}
        problems += [problem for problem in _among_pictures(settings, plan) if problem.key not in told]
    if problems or base is None or plan is None:
        raise InputError(_once(problems))
    return Prepared(with_seed(settings), plan, base, (*notes, *plan.notes))


def with_seed(settings: Settings) -> Settings:
    """The same settings with a seed: that of the restore point to go on from, or a new one.

    Raises:
        InputError: there is a restore point to go on from, and it cannot be read.
    """
    if settings.schedule.seed is not None:
        return settings
    resume = settings.saving.resume
    seed = seed_of(Path(resume).expanduser()) if resume else None
    return settings.replace(seed=secrets.randbelow(2**31) if seed is None else seed)


def _base(settings: Settings) -> ModelFile:
    return require_base(Path(settings.model.pretrained_model_name_or_path), tuple(FAMILIES))


def _start_weights(settings: Settings, base: ModelFile | None) -> None:
    """Refuse a file to start from that is of another kind than what is trained, or of another family."""
    key, kind, word = _STARTS.get(settings.model.training_method, ("network_weights", "lora", "LoRA"))
    name = settings.flat()[key]
    if not name or base is None or not os.path.isfile(name):  # noqa: PTH113 (any name may be asked of)
        return
    found = identify(Path(name))
    if found.kind != kind:
        what = found.title if found.kind == "base" else f"a {found.title}"
        raise InputError(f"this is {what}, not a {word}", where=name, next=f"choose a {word}", key=key)
    if found.family not in ("unknown", base.family):
        raise InputError(
            f"this is a {found.title}; the base model is {base.title}",
            where=name,
            next=f"choose a {word} made for this kind of base model",
            key=key,
        )


def _vae_file(settings: Settings) -> None:
    """Refuse a file that is neither a VAE nor a model which has one."""
    name = settings.model.vae
    if not name or not os.path.exists(name):  # noqa: PTH110 (any name may be asked of)
        return
    found = identify(Path(name))
    if found.kind not in ("vae", "base"):
        raise InputError(
            f"this is a {found.title}, not a VAE", where=name, next="choose the file of a VAE", key="vae"
        )


_STARTS = {
    "textual_inversion": ("weights", "embedding", "textual inversion"),
    "lllite": ("network_weights", "lllite", "ControlNet-LLLite"),
}
"""Training method -> the option that names a file to start from, and what that has to be."""


def _among_pictures(settings: Settings, plan: DatasetPlan) -> list[Problem]:
    """Folders of results that are those of pictures which a dataset file names."""
    subsets = [subset for dataset in plan.datasets for subset in dataset.subsets if not subset.metadata_file]
    folders = list(dict.fromkeys(subset.image_dir for subset in subsets))
    written = {"output_dir": settings.saving.output_dir, "logging_dir": settings.tracking.logging_dir}
    return [
        problem
        for key, folder in written.items()
        for problem in settings_package.output_conflicts(folder, folders, key)
    ]


def _thumbnail(settings: Settings) -> None:
    """Read the picture for the metadata now, as it would be too late at the first file."""
    name = settings.metadata.metadata_thumbnail
    if name and Path(name).is_file():
        thumbnail(Path(name))


def _schedule_class(settings: Settings) -> None:
    """Import a schedule of another library now, as it would be too late once a model is loaded."""
    name = settings.schedule.lr_scheduler_type
    if "." in name:
        from backend.train.schedule_class import load_class

        load_class(name)


def _optimizer_class(settings: Settings) -> None:
    """As for the schedule. A library that is missing is told of later, with its replacement."""
    name = settings.optimizer.optimizer_type
    if "." in name and missing_library(name) is None:
        from backend.train.optimizers import load_class

        load_class(find(name))


def _collect(problems: list[Problem], work: Callable[[], T]) -> T | None:
    try:
        return work()
    except AtelierError as error:
        problems.extend(error.problems)
        return None


_DATA_KEYS = {"train_data_dir", "reg_data_dir", "conditioning_data_dir", "dataset_config", "in_json"}


def _news(told: Iterable[Problem], found: Iterable[Problem]) -> list[Problem]:
    """Without what reading the dataset says once more of a folder or file that is known to be wrong."""
    known = {problem.key for problem in told} & _DATA_KEYS
    return [problem for problem in found if problem.key not in known]


def _once(problems: list[Problem]) -> list[Problem]:
    """Without repeats: two checks may find the same thing."""
    return list(dict.fromkeys(problems))
