"""What differs from visit to visit: cuts and colours, drawn by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.data import augment, images
from backend.data.loader import Batch, Loader
from backend.data.types import DatasetPlan, Picture
from backend.errors import InputError
from backend.settings import check
from tests.data.data_kit import add_picture, plan_of, settings


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def batches(plan: DatasetPlan, seed: int = 5, threads: int = 0, start: int = 0) -> list[Batch]:
    loader = Loader(plan, seed=seed, total_steps=10, threads=threads)
    return list(loader.epoch(1, start_batch=start))


def pixels(batch: Batch) -> torch.Tensor:
    assert batch.pixels is not None
    return batch.pixels


def test_random_cuts_are_told_and_are_the_same_for_any_loading(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=2, size=(160, 64))
    plan = plan_of(folder, random_crop=True, flip_aug=True, dataset_repeats=12)
    found = batches(plan)
    lefts = set()
    for batch in found:
        (left,) = batch.sizes.crop[:, 1].tolist()
        whole = images.decode(batch.pictures[0].path.read_bytes())
        whole = images.mirror(whole) if batch.flips[0] else whole
        wanted = torch.from_numpy(whole[:, left : left + 64].copy()).permute(2, 0, 1).float() / 127.5 - 1
        assert torch.equal(pixels(batch)[0], wanted)
        lefts.add(left)
    assert len(lefts) > 12 and min(lefts) < 24 and max(lefts) > 72
    again = batches(plan, threads=3, start=5)
    assert all(torch.equal(pixels(a), pixels(b)) for a, b in zip(found[5:], again, strict=True))
    other = [batch.sizes.crop.tolist() for batch in batches(plan, seed=6)]
    assert other != [batch.sizes.crop.tolist() for batch in found]


def test_colours_change_a_little_and_by_key(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=1, size=(64, 64))
    plain = pixels(batches(plan_of(folder))[0])
    plan = plan_of(folder, color_aug=True, dataset_repeats=8)
    varied = [pixels(batch) for batch in batches(plan)]
    assert all(torch.equal(a, pixels(b)) for a, b in zip(varied, batches(plan), strict=True))
    changes = [(v - plain).abs().mean().item() for v in varied]
    assert all(0.001 < change < 0.3 for change in changes) and len(set(changes)) == 8


def test_grey_stays_grey_in_range() -> None:
    picture = picture_named(Path("a.png"), color_aug=True)
    grey = np.full((8, 8, 3), 255, np.uint8)
    for visit in range(20):
        varied = augment.colours_at(grey, picture, 1, visit)
        assert varied.dtype == np.uint8 and np.ptp(varied.astype(int), axis=-1).max() <= 1
        assert varied.min() > 220


def picture_named(path: Path, **subset: object) -> Picture:
    from backend.data.buckets import BucketRules, assign
    from backend.data.types import Subset

    geometry = assign((1000, 800), BucketRules((256, 256)))
    made = replace(Subset(path.parent), **subset)  # type: ignore[arg-type]
    return Picture(f"0/{path.name}", path, made, "", None, geometry, 1)


def test_a_cut_around_the_face_has_it_in_its_middle() -> None:
    picture = picture_named(Path("photo_600_300_100_80.png"), face_crop_aug_range=(2.0, 4.0))
    widths = []
    for visit in range(50):
        g = augment.geometry_at(picture, 1, visit)
        scale = g.resized[0] / 1000
        assert g.bucket == (256, 256) and abs(g.resized[1] / 800 - scale) < 0.01
        middle = [600 * scale - g.crop[0], 300 * scale - g.crop[1]]
        assert all(abs(place - 128) <= 0.05 * 100 * scale + 1 for place in middle)
        widths.append(256 / scale / 100)
    assert min(widths) > 2.5 and max(widths) < 4.05 and np.ptp(widths) > 1
    # Never enlarged: 2 faces would be 200 px of the 256 that are needed.
    assert min(widths) >= 2.55


def test_a_face_at_the_edge_and_a_name_without_a_face() -> None:
    edge = picture_named(Path("photo_5_795_100_100.png"), face_crop_aug_range=(1.0, 1.5))
    for visit in range(10):
        g = augment.geometry_at(edge, 1, visit)
        assert g.crop == (0, g.resized[1] - 256)
    for name in ("photo.png", "photo_2000_10_50_50.png"):
        plain = picture_named(Path(name), face_crop_aug_range=(2.0, 4.0))
        assert augment.geometry_at(plain, 1, 3) == plain.geometry


def test_a_face_cut_reaches_the_batch(tmp_path: Path) -> None:
    add_picture(tmp_path / "set", "p_150_100_40_40.png", (300, 200))
    plan = plan_of(tmp_path / "set", face_crop_aug_range="1.2,1.5", dataset_repeats=3)
    for batch in batches(plan):
        assert pixels(batch).shape == (1, 3, 64, 64)
        assert batch.sizes.crop[0].tolist() != [0, 16]


@pytest.mark.parametrize("key", ["color_aug", "random_crop", "face_crop_aug_range"])
def test_the_rules_between_options_say_it_too(tmp_path: Path, key: str) -> None:
    values = {key: "2,4" if key.startswith("face") else True, "train_data_dir": str(tmp_path)}
    assert not [p for p in check(settings(**values)).errors if key in p.what]
    cached = check(settings(**values, cache_latents=True)).errors
    assert any(key in p.what and "cached latents" in p.what for p in cached)
    if key.startswith("face"):
        assert any(key in p.what for p in check(settings(**values, enable_bucket=True)).errors)


@pytest.mark.parametrize("value", ["2", "a,b", "4,2", "0.5,2"])
def test_a_range_that_is_none(value: str) -> None:
    with pytest.raises(InputError, match="face_crop_aug_range"):
        settings(face_crop_aug_range=value)
