"""Validation pictures: never trained on, chosen by the seed, for every kind of dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from tests.data.data_kit import add_picture, notes_of, plan_of, settings


def names(plan: DatasetPlan | None) -> set[str]:
    return {p.path.name for d in plan.datasets for p in d.pictures} if plan else set()


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (0.01, 1), (0.1, 1), (0.25, 3), (0.5, 5), (0.99, 9)])
def test_shares(pictures: Callable[..., Path], share: float, held: int) -> None:
    plan = plan_of(pictures(count=10), validation_split=share)
    assert len(names(plan.validation)) == held
    assert len(names(plan)) == 10 - held
    assert not names(plan) & names(plan.validation)
    assert plan.summary()["validation_images"] == held


def test_the_seed_decides_and_a_new_picture_moves_no_other(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=20)
    first, other = (
        names(plan_of(folder, validation_split=0.2, validation_seed=s).validation) for s in (1, 2)
    )
    assert len(first) == len(other) == 4 and first != other
    assert names(plan_of(folder, validation_split=0.2, validation_seed=1, seed=99).validation) == first
    add_picture(folder, "zzz.png")
    later = names(plan_of(folder, validation_split=0.2, validation_seed=1).validation)
    assert len(later - first) <= 1


def test_it_is_seen_once_and_the_same_each_time(pictures: Callable[..., Path]) -> None:
    plan = plan_of(
        pictures(), validation_split=0.5, dataset_repeats=5, flip_aug=True, color_aug=True, random_crop=True,
        shuffle_caption=True, caption_dropout_rate=0.5,
    )  # fmt: skip
    assert plan.validation is not None
    for picture in plan.validation.datasets[0].pictures:
        assert picture.repeats == 1
        subset = picture.subset
        assert not (subset.flip_aug or subset.color_aug or subset.random_crop or subset.captions.random())
    assert all(p.repeats == 5 and p.subset.flip_aug for p in plan.datasets[0].pictures)
    assert "2 pictures are held out for validation" in notes_of(plan)


def test_regularisation_is_never_held_out_and_is_balanced_to_what_is_left(tmp_path: Path) -> None:
    for i in range(10):
        add_picture(tmp_path / "t" / "2_sks dog", f"{i}.png")
        add_picture(tmp_path / "r" / "1_dog", f"r{i}.png")
    plan = plan_of(tmp_path / "t", reg_data_dir=str(tmp_path / "r"), validation_split=0.5)
    assert plan.validation is not None
    assert len(names(plan.validation)) == 5 and not any(n.startswith("r") for n in names(plan.validation))
    assert plan.train_images == plan.reg_images == 10


def test_a_picture_in_two_datasets_is_held_out_of_both(pictures: Callable[..., Path], tmp_path: Path) -> None:
    pictures("set", 8)
    config = tmp_path / "d.toml"
    tables = [
        f'[[datasets]]\nresolution = {side}\nvalidation_split = {share}\n[[datasets.subsets]]\nimage_dir = "set"\n'
        for side, share in ((64, 0.25), (128, 0.25), (96, 0))
    ]
    config.write_text("".join(tables))
    plan = build_plan(settings(dataset_config=str(config)))
    assert plan.validation is not None
    assert not names(plan) & names(plan.validation)
    assert [len(d.pictures) for d in plan.validation.datasets] == [2, 2]
    assert [len(d.pictures) for d in plan.datasets] == [6, 6, 6]


@pytest.mark.parametrize("kind", ["metadata", "control"])
def test_other_kinds_are_split_too(pictures: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    pictures("set", 6)
    pictures("guides", 6, caption=None)
    (tmp_path / "m.json").write_text(json.dumps({f"img_{i:02d}.png": {"caption": "x"} for i in range(6)}))
    line = 'metadata_file = "m.json"' if kind == "metadata" else 'conditioning_data_dir = "guides"'
    config = tmp_path / "d.toml"
    config.write_text(
        f'[[datasets]]\nvalidation_split = 0.5\n[[datasets.subsets]]\nimage_dir = "set"\n{line}\n'
    )
    plan = build_plan(settings(dataset_config=str(config)), control=kind == "control")
    assert len(names(plan)) == len(names(plan.validation)) == 3
    assert not names(plan) & names(plan.validation)


def test_too_few_to_hold_any_out(pictures: Callable[..., Path]) -> None:
    plan = plan_of(pictures(count=1), validation_split=0.5)
    assert plan.validation is None and plan.image_count == 1
    assert "No picture is held out for validation" in notes_of(plan)
