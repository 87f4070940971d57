"""Folder conventions: numbered folders, plain folders, regularisation."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.data.folders import repeats_and_words
from backend.errors import InputError
from tests.data.data_kit import add_picture, notes_of, plan_of


def text_of(folder: Path, **values: object) -> str:
    with pytest.raises(InputError) as caught:
        plan_of(folder, **values)
    return caught.value.text()


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("10_sks dog", (10, "sks dog")),
        ("3_a_b_c", (3, "a_b_c")),
        ("10_", (10, "")),
        ("10", (10, "")),
        ("ten_cat", None),
        ("CROP", None),
        ("_5", None),
        ("1.5_x", None),
    ],
)
def test_folder_names(name: str, meaning: tuple[int, str] | None) -> None:
    assert repeats_and_words(name) == meaning


def test_a_parent_of_numbered_folders(tmp_path: Path) -> None:
    parent = tmp_path / "train"
    add_picture(parent / "5_sks dog", "a.png", caption=None)
    add_picture(parent / "10_", "b.png")
    add_picture(parent / "CROP", "c.png")
    add_picture(parent / "ten_cat", "d.png")
    add_picture(parent, "loose.png")
    plan = plan_of(parent)
    assert [(p.path.name, p.repeats, p.caption) for p in plan.datasets[0].pictures] == [
        ("b.png", 10, "a, b"),
        ("a.png", 5, "sks dog"),
    ]
    assert plan.train_images == 15
    notes = notes_of(plan)
    assert "CROP, ten_cat" in notes
    assert "loose.png" in notes
    assert "5_sks dog: 5 repeats, 'sks dog'" in notes


def test_a_folder_of_pictures_itself(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    add_picture(folder, "a.png", caption=None)
    plan = plan_of(folder, class_tokens="sks dog", dataset_repeats=7)
    assert [(p.repeats, p.caption) for p in plan.datasets[0].pictures] == [(7, "sks dog")]
    assert "directly in photos" in notes_of(plan)


def test_the_folder_inside_instead_of_its_parent(tmp_path: Path) -> None:
    folder = tmp_path / "10_sks dog"
    add_picture(folder, "a.png", caption=None)
    assert [(p.repeats, p.caption) for p in plan_of(folder).datasets[0].pictures] == [(10, "sks dog")]


def test_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
    text = text_of(folder)
    assert f"No images in {folder}" in text
    assert "looked for" in text and "found 3 folders: a, b, c" in text


def test_an_empty_numbered_folder_does_not_stop_the_others(tmp_path: Path) -> None:
    add_picture(tmp_path / "set" / "1_a", "a.png")
    (tmp_path / "set" / "2_b").mkdir()
    plan = plan_of(tmp_path / "set")
    assert plan.image_count == 1
    assert f"No images in {tmp_path / 'set' / '2_b'}" in notes_of(plan)


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    assert f"Folder not found: {tmp_path / 'no'}" in text_of(tmp_path / "no")
    path = add_picture(tmp_path, "a.png")
    assert "is a file" in text_of(path)


def test_no_input_at_all() -> None:
    from backend.data.plan import build_plan
    from backend.settings import Settings

    with pytest.raises(InputError, match="No pictures were given"):
        build_plan(Settings.from_flat({}))


def reg_plan(tmp_path: Path, train: int, train_repeats: int, reg: int, reg_repeats: int):
    for i in range(train):
        add_picture(tmp_path / "t" / f"{train_repeats}_sks dog", f"{i:03d}.png")
    for i in range(reg):
        add_picture(tmp_path / "r" / f"{reg_repeats}_dog", f"{i:03d}.png", caption=None)
    return plan_of(tmp_path / "t", reg_data_dir=str(tmp_path / "r"), prior_loss_weight=0.5)


@pytest.mark.parametrize(
    ("train", "repeats", "reg", "reg_repeats", "expected"),
    [
        (2, 5, 3, 1, [4, 3, 3]),  # fewer: one more in turn until there are ten
        (2, 2, 9, 1, [1, 1, 1, 1]),  # more: the rest is dropped
        (2, 5, 4, 3, [3, 3, 3, 3]),  # own repeats reach past ten with the last
        (1, 7, 2, 2, [4, 3]),
    ],
)
def test_regularisation_repeats(
    tmp_path: Path, train: int, repeats: int, reg: int, reg_repeats: int, expected: list[int]
) -> None:
    plan = reg_plan(tmp_path, train, repeats, reg, reg_repeats)
    regular = [p for p in plan.datasets[0].pictures if p.subset.is_reg]
    assert [p.repeats for p in regular] == expected
    assert {p.loss_weight for p in regular} == {0.5}
    assert {p.loss_weight for p in plan.datasets[0].pictures if not p.subset.is_reg} == {1.0}
    assert f"{len(expected)} of {reg} pictures used" in notes_of(plan)
