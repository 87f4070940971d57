"""Two runs side by side: what was asked of them, what they saw, their curves and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from backend.jobs.curve import Bucket
from backend.jobs.follow import Follower, RunView, Sample
from backend.jobs.runs import Run

_POINTS = 240
_DATA_FACTS = (
    "images", "train_images", "reg_images", "validation_images", "with_caption_file", "batches_per_epoch",
    "resolutions", "buckets",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One thing that two runs do not have in common. None: it was left at its default, or is not there."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Pair:
    """Pictures of both runs for one prompt."""

    prompt: str
    first: tuple[Sample, ...]
    """In the order of their steps."""
    second: tuple[Sample, ...]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found."""

    settings: list[Difference]
    data: list[Difference]
    curves: tuple[list[Bucket], list[Bucket]]
    """Training loss, smoothed, over steps."""
    pictures: list[Pair]


def compare(first: Run, second: Run) -> Comparison:
    """Put two runs side by side. Reads both runs' events whole, once."""
    views = _view(first), _view(second)
    curves = views[0].curve.reduced(_POINTS), views[1].curve.reduced(_POINTS)
    facts = _differences(_data_facts(views[0]), _data_facts(views[1]))
    folders = _differences(_dataset(first), _dataset(second))
    settings = _differences(settings_of(first), settings_of(second))
    return Comparison(settings, [*facts, *folders], curves, _pairs(*views))


def settings_of(run: Run) -> dict[str, Any]:
    """The options that a run was given, by name; nothing when its file cannot be read."""
    return _flat(_toml(run.config))


def _view(run: Run) -> RunView:
    follower = Follower(run)
    view = follower.update()
    while view.catching_up:
        view = follower.update()
    return view


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, TOMLKitError):
        return {}


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= value if isinstance(value, dict) else {key: value}
    return found


def _data_facts(view: RunView) -> dict[str, Any]:
    facts = {key: view.plan[key] for key in _DATA_FACTS if view.plan.get(key)}
    buckets = facts.get("buckets")
    if isinstance(buckets, list):
        facts["buckets"] = len(buckets)
    return facts


def _dataset(run: Run) -> dict[str, Any]:
    """Folders of pictures with what was set for them, by folder."""
    found: dict[str, Any] = {}
    for dataset in _toml(run.path / "dataset.toml").get("datasets") or []:
        for subset in dataset.get("subsets") or []:
            name = str(subset.get("image_dir") or subset.get("metadata_file") or "")
            found |= {f"{name}: {key}": value for key, value in subset.items() if str(value) != name}
            found[name] = f"{subset.get('num_repeats', 1)} x"
    return found


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    keys = dict.fromkeys([*first, *second])
    pairs = (Difference(key, first.get(key), second.get(key)) for key in keys)
    return [pair for pair in pairs if pair.first != pair.second]


def _pairs(first: RunView, second: RunView) -> list[Pair]:
    """Pictures by prompt and by its place in the list; prompts of both runs first."""
    groups = [_by_prompt(view) for view in (first, second)]
    keys = sorted(dict.fromkeys([*groups[0], *groups[1]]), key=lambda key: sum(key in g for g in groups) < 2)
    return [Pair(key, groups[0].get(key, ()), groups[1].get(key, ())) for key in keys]


def _by_prompt(view: RunView) -> dict[str, tuple[Sample, ...]]:
    found: dict[str, list[Sample]] = {}
    for sample in sorted(view.samples, key=lambda sample: sample.step):
        found.setdefault(sample.prompt, []).append(sample)
    return {prompt: tuple(samples) for prompt, samples in found.items()}
