"""Buckets against the reference tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.data.buckets import BucketRules, assign, enlargement, longest_bucket, predefined

TABLES = json.loads((Path(__file__).parents[1] / "golden" / "buckets.json").read_text())


def rules_of(table: dict) -> BucketRules:
    s = table["settings"]
    return BucketRules(
        tuple(s["max_reso"]), True, s["min_size"], s["max_size"], s["reso_steps"], s["no_upscale"]
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda t: str(t["settings"]["max_size"]))
def test_every_size_gets_the_reference_bucket(table: dict) -> None:
    differing = []
    for item in table["assign"]:
        geometry = assign(tuple(item["size"]), rules_of(table))
        if list(geometry.bucket) != item["bucket"] or list(geometry.resized) != item["resized"]:
            differing.append(item)
    # The reference has one bucket without area, which cannot be trained on.
    assert all(min(item["bucket"]) == 0 for item in differing)
    assert len(differing) <= 1


@pytest.mark.parametrize(
    "table", [t for t in TABLES if "predefined" in t], ids=lambda t: str(t["settings"]["max_size"])
)
def test_predefined_sizes(table: dict) -> None:
    rules = rules_of(table)
    sizes = predefined(
        rules.resolution, rules.min_bucket_reso, rules.max_bucket_reso, rules.bucket_reso_steps
    )
    assert [list(size) for size in sizes] == table["predefined"]


@pytest.mark.parametrize(
    ("resolution", "longest", "number"),
    [((512, 512), 1024, 17), ((768, 768), 1024, 19), ((512, 768), 1024, 19), ((1024, 1024), 1024, 25), ((1024, 1024), 2048, 41)],
)  # fmt: skip
def test_numbers_of_sizes(resolution: tuple[int, int], longest: int, number: int) -> None:
    assert len(predefined(resolution, 256, longest, 64)) == number


@pytest.mark.parametrize("size", [(1, 1), (63, 64), (1, 5000), (5000, 1), (20, 20), (3000, 7)])
@pytest.mark.parametrize("no_upscale", [True, False])
@pytest.mark.parametrize("enable", [True, False])
def test_no_bucket_is_empty_and_every_bucket_is_covered(
    size: tuple[int, int], no_upscale: bool, enable: bool
) -> None:
    geometry = assign(size, BucketRules((512, 512), enable, bucket_no_upscale=no_upscale))
    for side in (0, 1):
        assert geometry.bucket[side] >= 64 and geometry.bucket[side] % 64 == 0
        assert geometry.crop[side] >= 0
        assert geometry.crop[side] + geometry.bucket[side] <= geometry.resized[side]


def test_without_buckets_pictures_are_brought_to_size() -> None:
    geometry = assign((300, 200), BucketRules((128, 128)))
    assert geometry.bucket == (128, 128)
    assert geometry.resized == (192, 128)
    assert geometry.crop == (32, 0)


def test_no_upscale_keeps_small_pictures_as_they_are() -> None:
    geometry = assign((300, 200), BucketRules((512, 512), True, bucket_no_upscale=True))
    assert geometry.resized == (300, 200)
    assert enlargement(geometry) == 1


def test_the_longest_bucket_of_a_size_is_the_default_at_512() -> None:
    assert longest_bucket((512, 512), 256) == 1024
    assert longest_bucket((1024, 1024), 256) > 1024
