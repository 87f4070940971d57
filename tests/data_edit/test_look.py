"""Thumbnails as trained, pages and histograms."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.data import images
from backend.data.edit import histograms, page, save_mask, thumbnail, thumbnails
from backend.errors import InputError
from tests.data.data_kit import plan_of

Make = Callable[..., Path]


def smooth(folder: Path, name: str, size: tuple[int, int]) -> Path:
    """A picture of gentle colours, which survives WebP."""
    folder.mkdir(parents=True, exist_ok=True)
    across, down = np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1])
    pixels = np.stack(np.broadcast_arrays(across[None, :], down[:, None], 128.0), axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    (folder / name).with_suffix(".txt").write_text("colours", encoding="utf-8")
    return folder / name


def seen(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_thumbnail_shows_the_bucket_as_it_is_cut(tmp_path: Path) -> None:
    smooth(tmp_path / "set", "a.png", (300, 100))
    plan = plan_of(
        tmp_path / "set", resolution="128", enable_bucket=True, min_bucket_reso=64, bucket_reso_steps=64
    )
    (picture,) = plan.datasets[0].pictures
    shown = seen(thumbnail(picture, 512))
    assert shown.shape[1::-1] == picture.geometry.bucket
    expected = images.fit(images.decode(picture.path.read_bytes()), picture.geometry)
    assert abs(shown - expected).mean() < 4
    whole = seen(thumbnail(picture, 512, as_trained=False))
    assert whole.shape[1::-1] == (300, 100)
    small = seen(thumbnail(picture, 64))
    assert max(small.shape[:2]) == 64


def test_a_thumbnail_is_made_once_and_found_after_a_move(tmp_path: Path, home: Path) -> None:
    path = smooth(tmp_path / "set", "a.png", (80, 80))
    first = thumbnail(path)
    assert first.is_relative_to(home) and first.suffix == ".webp"
    made = first.stat().st_mtime_ns
    moved = path.rename(tmp_path / "b.png")
    assert thumbnail(moved) == first and first.stat().st_mtime_ns == made
    smooth(tmp_path, "b.png", (90, 80))
    os.utime(moved, ns=(1, 1))
    assert thumbnail(moved) != first


def test_what_a_mask_takes_out_is_veiled(tmp_path: Path) -> None:
    path = smooth(tmp_path / "set", "a.png", (80, 80))
    mask = np.zeros((80, 80), dtype=np.uint8)
    mask[:, :40] = 255
    saved = save_mask(path, mask, tmp_path / "masks")
    plain, veiled = seen(thumbnail(path)), seen(thumbnail(path, mask=saved))
    assert abs(plain[:, :36] - veiled[:, :36]).mean() < 3
    assert (veiled[:, 44:, 0] - veiled[:, 44:, 1]).mean() > (plain[:, 44:, 0] - plain[:, 44:, 1]).mean() + 20


def test_an_alpha_channel_that_is_the_mask_is_shown_too(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    pixels = np.full((64, 64, 4), 100, dtype=np.uint8)
    pixels[:, :, 3] = np.where(np.arange(64)[None, :] < 32, 255, 0)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "a.txt").write_text("grey", encoding="utf-8")
    plain = plan_of(folder).datasets[0].pictures[0]
    masked = plan_of(folder, alpha_mask=True).datasets[0].pictures[0]
    assert seen(thumbnail(plain))[:, 40:].mean() > 250
    veiled = seen(thumbnail(masked))[:, 40:]
    assert veiled[:, :, 0].mean() > veiled[:, :, 1].mean() + 60


def test_a_picture_that_cannot_be_shown_is_named_and_stops_no_page(tmp_path: Path) -> None:
    path = smooth(tmp_path / "set", "a.png", (80, 80))
    smooth(tmp_path / "set", "b.png", (80, 80))
    pictures = plan_of(tmp_path / "set").datasets[0].pictures
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.png is cut off"):
        thumbnail(path)
    made = thumbnails(pictures)
    assert made[0] is None and made[1] is not None and made[1].is_file()
    path.unlink()
    with pytest.raises(InputError, match=r"a\.png no such file"):
        thumbnail(path)


def test_pages_hold_the_asked_slice_only(originals: Make) -> None:
    plan = plan_of(originals(6), enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=32)
    first = page(plan, 0, 4)
    assert first.total == 6 and len(first.pictures) == 4
    assert [p.path.name for p in page(plan, 4, 4).pictures] == ["img_04.png", "img_05.png"]
    assert page(plan, 100, 4).pictures == ()
    bucket = first.pictures[0].geometry.bucket
    of_bucket = page(plan, 0, 10, bucket)
    assert of_bucket.total == len([p for p in plan.datasets[0].pictures if p.geometry.bucket == bucket])


def test_histograms_count_every_picture_once(originals: Make) -> None:
    plan = plan_of(
        originals(6), enable_bucket=True, min_bucket_reso=32, bucket_reso_steps=32, dataset_repeats=3
    )
    charts = histograms(plan)
    assert {name: sum(bar["count"] for bar in bars) for name, bars in charts.items()} == {
        "buckets": 6, "sizes": 6, "aspects": 6,
    }  # fmt: skip
    assert sum(bar["with_repeats"] for bar in charts["buckets"]) == 18
    assert [bar["label"] for bar in charts["aspects"]] == ["2:3", "1:1", "3:2"]
    assert charts["sizes"] == [{"label": "0 to 127 px", "from": 0, "to": 128, "count": 6}]
