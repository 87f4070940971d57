"""Holds pictures out of training to measure it by.

The choice depends on each picture's own name and the seed, so that a picture that is added later
moves no other. A file is never on both sides, whatever folders and datasets it stands in, and
regularisation pictures are never chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from backend import keyed
from backend.data.report import Report, count
from backend.data.types import DatasetPlan, Picture, Subset

PURPOSE = "validation"


@dataclass(frozen=True)
class Split:
    """The pictures of each dataset, apart."""

    training: list[list[Picture]]
    validation: list[list[Picture]]


def split(
    datasets: list[list[Picture]], shares: list[float], seeds: list[int | None], report: Report
) -> Split:
    """Take ``shares`` of each dataset's pictures out of training.

    At least one where a share is asked for and there are two or more; never all, but for a share
    of 1.
    """
    if not any(shares):
        return Split(datasets, [[] for _ in datasets])
    held: set[Path] = set()
    for pictures, share, seed in zip(datasets, shares, seeds, strict=True):
        held |= _chosen(pictures, share, seed or 0)
    if not held:
        report.note("No picture is held out for validation: there are too few.", key="validation_split")
        return Split(datasets, [[] for _ in datasets])
    training = [[p for p in pictures if _real(p) not in held] for pictures in datasets]
    validation = [
        [_plain(p) for p in pictures if share and not p.subset.is_reg and _real(p) in held]
        for pictures, share in zip(datasets, shares, strict=True)
    ]
    report.note(
        f"{count(len(held), 'picture is', 'pictures are')} held out for validation and not trained on.",
        key="validation_split",
    )
    return Split(training, validation)


def seed_of(plan: DatasetPlan) -> int:
    """What everything random in measuring by held out pictures is keyed by: their dataset's seed, or 0."""
    given = (d.validation_seed for d in plan.datasets if d.validation_seed is not None)
    return next(given, 0)


def _chosen(pictures: list[Picture], share: float, seed: int) -> set[Path]:
    files = {_real(p): p.path.name for p in pictures if not p.subset.is_reg}
    number = int(len(files) * share + 0.5)
    if 0 < share < 1:
        number = min(max(1, number), len(files) - 1)
    # Names in place of paths, so that a moved dataset is split alike.
    order = sorted(files, key=lambda path: (keyed.key(seed, PURPOSE, path.parent.name, files[path]), path))
    return set(order[: max(0, number)])


def _real(picture: Picture) -> Path:
    return picture.path.resolve()


def _plain(picture: Picture) -> Picture:
    """Once, and the same at every visit."""
    return replace(picture, subset=_plain_subset(picture.subset), repeats=1)


def _plain_subset(subset: Subset) -> Subset:
    kept = replace(
        subset.captions,
        shuffle_caption=False,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )
    return replace(
        subset, num_repeats=1, flip_aug=False, color_aug=False, random_crop=False, face_crop_aug_range=None,
        captions=kept,
    )  # fmt: skip
