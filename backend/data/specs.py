"""What a dataset is asked to be, before any picture is looked at: sizes, batch, folders and rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.data.buckets import BucketRules, longest_bucket
from backend.data.report import Report
from backend.data.schema import KEYS
from backend.data.types import CaptionRules, Subset
from backend.settings.sections import DatasetSettings

CAPTION_KEYS = tuple(name for name in CaptionRules.__dataclass_fields__ if name != "templates")
"""Rules of captions that a dataset file may say."""
CHANGES = ("color_aug", "random_crop", "face_crop_aug_range")
"""What makes pixels differ from visit to visit."""


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset as asked for: sizes, batch and folders, before any picture is looked at."""

    rules: BucketRules
    batch_size: int
    subsets: tuple[Subset, ...]
    validation_split: float = 0.0
    validation_seed: int | None = None
    network_multiplier: float = 1.0


@dataclass(frozen=True)
class Defaults:
    """What stands in where a dataset file is silent."""

    settings: DatasetSettings
    resolution: tuple[int, int]
    masked_loss: bool = False
    prior_loss_weight: float = 1.0
    control: bool = False
    """conditioning_data_dir holds pictures that guide, which every subset must have."""
    templates: tuple[str, ...] = ()
    """Captions of all pictures but those for regularisation, where they are made and not read."""

    def of(self, name: str) -> Any:
        if name == "resolution":
            return self.settings.resolution or self.resolution
        if name == "prior_loss_weight":
            return self.prior_loss_weight
        setting = KEYS[name].setting
        return getattr(self.settings, setting) if setting else None


class Levels:
    """The tables that hold for one dataset or subset, innermost first."""

    def __init__(self, defaults: Defaults, *tables: Mapping[str, Any]) -> None:
        self.defaults = defaults
        self.tables = tables

    def get(self, name: str) -> Any:
        for table in self.tables:
            if table.get(name) is not None:
                return table[name]
        return self.defaults.of(name)

    def given(self, name: str) -> bool:
        return any(table.get(name) is not None for table in self.tables)


def bucket_rules(levels: Levels, report: Report, where: str = "") -> BucketRules:
    """The bucket rules of one dataset; sizes that cannot work become problems.

    The longest bucket side is raised to what the training size needs, and the smallest lowered,
    when they were left at their defaults.
    """
    resolution: tuple[int, int] = levels.get("resolution")
    steps: int = levels.get("bucket_reso_steps")
    low, high = int(levels.get("min_bucket_reso")), int(levels.get("max_bucket_reso"))
    enabled = bool(levels.get("enable_bucket"))
    if _left_alone(levels, "min_bucket_reso") and low > min(resolution):
        low = max(steps, min(resolution) // 2 // steps * steps)
        if enabled and not levels.get("bucket_no_upscale"):
            report.note(
                f"The smallest bucket side is {low} px, since the training size is {_text(resolution)}.",
                where=where,
            )
    if _left_alone(levels, "max_bucket_reso"):
        high = max(high, longest_bucket(resolution, low)) if enabled else high
    rules = BucketRules(resolution, enabled, low, high, steps, bool(levels.get("bucket_no_upscale")))
    _check_sizes(rules, report, where)
    return rules


def _left_alone(levels: Levels, name: str) -> bool:
    default = DatasetSettings.model_fields[name].default
    return not levels.given(name) and levels.get(name) == default


def _check_sizes(rules: BucketRules, report: Report, where: str) -> None:
    sides = rules.resolution
    if not rules.enable_bucket:
        if any(side % 8 for side in sides):
            near = ",".join(str(max(64, round(side / 8) * 8)) for side in sides)
            report.problem(
                f"resolution {_text(sides)} is not a multiple of 8.",
                where=where,
                next=f"Use {near}.",
                key="resolution",
            )
        return
    if rules.bucket_reso_steps % 8:
        report.problem(
            f"bucket_reso_steps {rules.bucket_reso_steps} is not a multiple of 8.",
            where=where,
            next="Use 64, or 32 for SDXL.",
            key="bucket_reso_steps",
        )
    if rules.bucket_no_upscale:
        return
    if rules.min_bucket_reso > min(sides):
        report.problem(
            f"min_bucket_reso {rules.min_bucket_reso} is above the training size {_text(sides)}.",
            where=where,
            next=f"Use at most {min(sides)}.",
            key="min_bucket_reso",
        )
    if rules.max_bucket_reso < max(sides):
        report.problem(
            f"max_bucket_reso {rules.max_bucket_reso} is below the training size {_text(sides)}.",
            where=where,
            next=f"Use at least {max(sides)}.",
            key="max_bucket_reso",
        )


def make_subset(
    levels: Levels,
    image_dir: Path,
    *,
    class_tokens: str | None,
    is_reg: bool,
    alpha_mask: bool,
    masks: Path | None = None,
    num_repeats: int | None = None,
    metadata: Path | None = None,
) -> Subset:
    """A subset whose other rules come from ``levels``."""
    extension: str = levels.get("caption_extension").strip() or ".caption"
    return Subset(
        image_dir=image_dir,
        num_repeats=levels.get("num_repeats") if num_repeats is None else num_repeats,
        class_tokens=(class_tokens or "").strip() or None,
        caption_extension=extension if extension.startswith(".") else f".{extension}",
        is_reg=is_reg,
        flip_aug=levels.get("flip_aug"),
        color_aug=levels.get("color_aug"),
        random_crop=levels.get("random_crop"),
        face_crop_aug_range=_face_range(levels.get("face_crop_aug_range")),
        alpha_mask=alpha_mask,
        conditioning_data_dir=masks,
        control=levels.defaults.control and masks is not None,
        metadata_file=metadata,
        custom_attributes=levels.get("custom_attributes") or {},
        resize_interpolation=levels.get("resize_interpolation"),
        prior_loss_weight=levels.get("prior_loss_weight"),
        captions=CaptionRules(
            **{name: levels.get(name) for name in CAPTION_KEYS},
            templates=() if is_reg else levels.defaults.templates,
        ),
    )


def make_dataset(levels: Levels, subsets: tuple[Subset, ...], report: Report, where: str = "") -> DatasetSpec:
    """A dataset of subsets whose other rules come from ``levels``."""
    return DatasetSpec(
        bucket_rules(levels, report, where),
        levels.get("batch_size"),
        subsets,
        float(levels.get("validation_split")),
        levels.get("validation_seed"),
        1.0 if levels.get("network_multiplier") is None else float(levels.get("network_multiplier")),
    )


def _face_range(value: str | tuple[float, float] | None) -> tuple[float, float] | None:
    """Settings have it as text, '2,4'; dataset files as two numbers."""
    if not value or not isinstance(value, str):
        return value or None
    low, high = value.split(",")
    return float(low), float(high)


def check_changes(specs: Iterable[DatasetSpec], cached: bool, report: Report) -> None:
    """Refuse changes from visit to visit where latents are cached, and face cuts in buckets."""
    for spec in specs:
        for subset in spec.subsets:
            where = str(subset.metadata_file or subset.image_dir)
            asked = [name for name in CHANGES if getattr(subset, name)]
            if asked and cached:
                report.problem(
                    f"{', '.join(asked)} cannot be used with cached latents.",
                    where=where,
                    why="A picture is encoded once, so it cannot differ from visit to visit.",
                    next="Switch cache_latents off, or remove the option.",
                    key="cache_latents",
                )
            if subset.face_crop_aug_range and spec.rules.enable_bucket:
                report.problem(
                    "face_crop_aug_range cannot be used with aspect buckets.",
                    where=where,
                    why="A cut around a face has the training size itself.",
                    next="Switch enable_bucket off, or remove face_crop_aug_range.",
                    key="face_crop_aug_range",
                )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
