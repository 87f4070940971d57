"""Rules about what becomes of a picture on its way into a bucket."""

from __future__ import annotations

from collections.abc import Iterator

from backend.data.buckets import enlargement
from backend.data.gather import MOST_ENLARGED
from backend.data.lint.rule import Cure, Hit, hit
from backend.data.lint.survey import Placed, Survey
from backend.data.report import count
from backend.data.types import Geometry

VISIBLE_ENLARGEMENT = 1.5
"""From here on an enlarged picture looks soft, which a model learns."""
MUCH_CUT = 0.2
"""Share of a picture that may be lost to the cut without a word: buckets 64 px apart lose up to 15 %."""


def far_too_small(survey: Survey) -> Iterator[Hit]:
    for placed in survey.placed:
        factor = enlargement(placed.geometry)
        if factor > MOST_ENLARGED:
            yield hit(
                placed.item, f"{_size(placed.geometry.original)} px, {factor:.0f} times too small; left out"
            )


def enlarged(survey: Survey) -> Iterator[Hit]:
    for placed in survey.used():
        factor = enlargement(placed.geometry)
        if factor > 1:
            severity = "warning" if factor >= VISIBLE_ENLARGEMENT else "note"
            detail = f"{_size(placed.geometry.original)} px, enlarged {factor:.2f} times"
            yield hit(placed.item, detail, severity=severity)


def cut_much(survey: Survey) -> Iterator[Hit]:
    for placed in survey.used():
        lost = share_lost(placed.geometry)
        if lost >= MUCH_CUT:
            original, bucket = _size(placed.geometry.original), _size(placed.geometry.bucket)
            yield hit(placed.item, f"{lost:.0%} would be cut off ({original} px in {bucket})")


def small_buckets(survey: Survey) -> Iterator[Hit]:
    """Buckets that cannot fill a batch; each is trained as one smaller batch."""
    for spec in survey.specs:
        buckets: dict[tuple[int, int], list[Placed]] = {}
        for placed in survey.used():
            if placed.spec is spec:
                buckets.setdefault(placed.geometry.bucket, []).append(placed)
        for size, found in sorted(buckets.items()):
            pictures = sum(placed.item.subset.num_repeats for placed in found)
            if pictures < spec.batch_size:
                detail = f"{_size(size)} has {count(pictures, 'picture')} for batches of {spec.batch_size}"
                yield hit(found[0].item, detail)


def where_buckets_are_off(cure: Cure) -> Cure:
    """A cure for datasets without buckets only."""
    return lambda survey, hits: (
        None if all(spec.rules.enable_bucket for spec in survey.specs) else cure(survey, hits)
    )


def where_buckets_are_on(cure: Cure) -> Cure:
    """A cure for datasets with buckets only."""
    return lambda survey, hits: (
        cure(survey, hits) if all(spec.rules.enable_bucket for spec in survey.specs) else None
    )


def share_lost(geometry: Geometry) -> float:
    """Share of the picture's area that lies outside its bucket."""
    (across, down), (width, height) = geometry.resized, geometry.bucket
    return 1 - width * height / (across * down)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
