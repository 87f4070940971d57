"""What is not as it was when a restore point was made, and what that means for the run.

What a changed option means is declared beside the option (``resume`` of its declaration, or of its
section); datasets are compared as they are, whatever file or option they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from backend.data.config import dataset_toml
from backend.data.plan import picture_ids
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.settings import Settings
from backend.settings.declare import declarations
from backend.settings.option import ResumeEffect
from backend.settings.secrets import shareable
from backend.settings.settings import DEFAULTS
from backend.weights.hashes import content_mark, legacy_hash

_ORDER: tuple[ResumeEffect, ...] = ("impossible", "changes", "safe")
_PATHS = frozenset(("image_dir", "metadata_file", "conditioning_data_dir"))
"""Keys of a dataset file that only say where things lie."""
_WEIGHTS = frozenset((".safetensors", ".bin"))
_HOW_TO_RESUME = frozenset(
    (
        "resume", "resume_from_huggingface", "resume_changed_dataset", "initial_step", "initial_epoch",
        "skip_until_initial_step",
    )
)  # fmt: skip
_COMPARED_OTHERWISE = _HOW_TO_RESUME | {"pretrained_model_name_or_path"}


@dataclass(frozen=True)
class Difference:
    """One thing that changed, as written for people."""

    what: str
    """The option's key, or ``dataset 1, subset 2: flip_aug``, or ``base model``."""
    before: str
    now: str
    effect: ResumeEffect
    key: str | None = None
    """The option, for the form."""


def identity(settings: Settings, plan: DatasetPlan, batches: int, family: str, base: Path) -> dict[str, Any]:
    """What a restore point remembers of a run, as plain data, without secrets and folders.

    ``batches``: those of an epoch.
    """
    return {
        "seed": settings.schedule.seed,
        "pictures": picture_ids(plan),
        "settings": _public(settings),
        "dataset": _dataset(plan),
        "batches_per_epoch": batches,
        "base": {"family": family, "name": base.name, "mark": _mark(base), "content": _content(base)},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Everything that differs between two identities, the gravest first."""
    found = [*_of_base(before, now), *_of_settings(before, now), *_of_datasets(before, now)]
    return sorted(found, key=lambda one: _ORDER.index(one.effect))


def changed_options(before: Mapping[str, Any], settings: Settings) -> list[Difference]:
    """Options alone that differ from those of a restore point."""
    return list(_of_settings(before, {"settings": _public(settings)}))


def require_possible(found: list[Difference]) -> None:
    """Refuse to resume when something changed that the restore point cannot live with.

    Raises:
        InputError: one problem for each of these.
    """
    problems = [
        Problem(
            f"{one.what} was {one.before} when the restore point was made and is {one.now} now",
            why="the weights or the optimizer's memory in it do not fit any more",
            next="put it back to resume, or start a new run from the LoRA file (network_weights)",
            key=one.key,
        )
        for one in found
        if one.effect == "impossible"
    ]
    if problems:
        raise InputError(problems)


def require_same_pictures(
    before: Mapping[str, Any], now: Mapping[str, Any], step: int, accepted: bool = False
) -> Problem | None:
    """Whether the pictures are those that a restore point counts its batches of.

    With other ones, a run is only resumed when that is ``accepted``: then what is known of them comes
    back as a note.

    Raises:
        InputError: says how many were added and removed.
    """
    old, new = set(before.get("pictures", ())), set(now["pictures"])
    if old == new:
        return None
    what = f"{len(new - old)} added, {len(old - new)} removed since step {step}"
    found = _some(new - old, "added") + _some(old - new, "removed")
    if accepted:
        return Problem(f"going on with other pictures: {what}", why=found, key="resume_changed_dataset")
    raise InputError(
        f"the pictures are not the same: {what}",
        why=found,
        next="put them back to resume, set resume_changed_dataset to go on with these, or start a new "
        "run from the last LoRA file (network_weights)",
        key="train_data_dir",
    )


def _some(ids: set[str], word: str) -> str:
    """``added: a, b, ...; `` of picture identities."""
    if not ids:
        return ""
    names = sorted(one.rpartition(" x")[0].partition("/")[2] or one for one in ids)
    return f"{word}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; "


def _public(settings: Settings) -> dict[str, Any]:
    """Changed settings without secrets; of paths the last part."""
    return shareable(settings.changed())


def _dataset(plan: DatasetPlan) -> list[dict[str, Any]]:
    import tomlkit

    tables: Any = tomlkit.parse(dataset_toml(plan)).unwrap()
    return [
        {**dataset, "subsets": [_without_paths(subset) for subset in dataset["subsets"]]}
        for dataset in cast("list[dict[str, Any]]", tables["datasets"])
    ]


def _without_paths(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in _PATHS}


def _mark(base: Path) -> str:
    """A mark that tells base models apart without reading all of them."""
    try:
        if base.is_file():
            return f"{legacy_hash(base)}-{base.stat().st_size}"
        sizes = sorted((file.name, file.stat().st_size) for file in base.rglob("*.safetensors"))
    except OSError:
        return ""
    return "-".join(str(size) for _, size in sizes)


def _content(base: Path) -> str:
    """A mark of what a base model holds: of one file, or of all weights of a folder."""
    try:
        if base.is_file():
            return content_mark(base)
        return "-".join(content_mark(file) for file in sorted(base.rglob("*")) if file.suffix in _WEIGHTS)
    except OSError:
        return ""


def _is_other(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether base models differ; restore points of earlier versions know less of theirs."""
    known = "content" if old.get("content") and new.get("content") else "mark"
    return bool(old[known] != new[known])


def _of_base(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = before.get("base"), now["base"]
    key = "pretrained_model_name_or_path"
    if old and old["family"] != new["family"]:
        yield Difference("the base model's family", old["family"], new["family"], "impossible", key)
    elif old and _is_other(old, new):
        name = f"another file ({new['name']})" if new["name"] == old["name"] else new["name"]
        yield Difference("the base model", old["name"], name, "impossible", key)


def _of_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Options; those of the dataset are compared as datasets."""
    old, new = before.get("settings", {}), now["settings"]
    for key, declared in declarations().items():
        if declared.section == "dataset" or declared.info.secret or key in _COMPARED_OTHERWISE:
            continue
        a, b = old.get(key, DEFAULTS[key]), new.get(key, DEFAULTS[key])
        if a != b:
            yield Difference(key, _text(a), _text(b), declared.resume, key)


def _of_datasets(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = before.get("dataset"), now["dataset"]
    if old is None or len(old) != len(new):
        return  # other datasets have other pictures, which is refused by itself
    for index, (a, b) in enumerate(zip(old, new, strict=True), start=1):
        place = f"dataset {index}: " if len(new) > 1 else ""
        yield from _of_tables(place, {**a, "subsets": 0}, {**b, "subsets": 0})
        for number, (c, d) in enumerate(zip(a["subsets"], b["subsets"], strict=False), start=1):
            yield from _of_tables(f"{place}subset {number}: ", c, d)


def _of_tables(place: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for key in {**a, **b}:
        if a.get(key) != b.get(key):
            yield Difference(f"{place}{key}", _text(a.get(key)), _text(b.get(key)), "changes", None)


def _text(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "(empty)"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else str(value)
