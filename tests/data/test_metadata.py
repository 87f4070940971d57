"""Metadata files of fine-tuning: keys, texts, and lines that are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data.config import dataset_toml
from backend.data.metadata import caption_of
from backend.data.plan import build_plan
from backend.data.types import CaptionRules, DatasetPlan
from backend.errors import InputError
from tests.data.data_kit import add_picture, notes_of, settings


def plan_of(metadata: Path, folder: Path | None, **values: object) -> DatasetPlan:
    return build_plan(
        settings(in_json=str(metadata), train_data_dir=str(folder) if folder else None, **values)
    )


def problems_of(metadata: Path, folder: Path | None, **values: object) -> str:
    with pytest.raises(InputError) as caught:
        plan_of(metadata, folder, **values)
    return caught.value.text()


@pytest.fixture
def folder(pictures: Callable[..., Path]) -> Path:
    return pictures("set", 3, caption=None)


def write(path: Path, data: object) -> Path:
    lines = data if isinstance(data, list) else None
    text = "\n".join(json.dumps(line) for line in lines) if lines is not None else json.dumps(data, indent=1)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("facts", "wildcards", "text"),
    [
        ({"caption": "a dog", "tags": "x, y"}, False, "a dog,x, y"),
        ({"caption": "", "tags": "x, y"}, False, "x, y"),
        ({"caption": "a dog"}, False, "a dog"),
        ({"tags": "x\ny"}, False, "x,y"),
        ({"caption": "one\ntwo", "tags": "x"}, True, "one,x\ntwo,x"),
        ({"caption": "one\ntwo", "tags": "x"}, False, "one,x"),
        ({"caption": "", "tags": "x\ny"}, True, "x,y"),
        ({"caption": None, "tags": None}, True, ""),
    ],
)
def test_texts(facts: dict[str, str], wildcards: bool, text: str) -> None:
    assert caption_of(facts, CaptionRules(enable_wildcard=wildcards)) == text


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_keys_are_absolute_or_start_at_the_picture_folder(folder: Path, tmp_path: Path, ending: str) -> None:
    add_picture(folder / "deep", "d.png", caption="not this")
    facts = {
        "img_00.png": {"caption": "zero", "image_size": [1, 1]},
        str(folder / "img_01.png"): {"tags": "one"},
        "deep/d.png": {"caption": "deep"},
        "img_02": {"caption": "two"},
    }
    data = facts if ending == "json" else [{"image_path": key, **value} for key, value in facts.items()]
    path = write(tmp_path / f"meta.{ending}", data)
    plan = plan_of(path, folder, dataset_repeats=2)
    found = {p.path.relative_to(folder).as_posix(): (p.caption, p.repeats) for p in plan.datasets[0].pictures}
    assert found == {
        "img_00.png": ("zero", 2), "img_01.png": ("one", 2), "deep/d.png": ("deep", 2), "img_02.png": ("two", 2),
    }  # fmt: skip
    assert {p.geometry.original for p in plan.datasets[0].pictures} == {(96, 64)}
    again = plan_of(path, folder, dataset_repeats=2)
    assert again.datasets == plan.datasets


def test_without_a_picture_folder_keys_start_beside_the_file(folder: Path) -> None:
    path = write(folder / "meta.json", {"img_00.png": {"caption": "a"}})
    assert plan_of(path, None).image_count == 1


def test_a_broken_line_is_named_and_the_others_are_kept(folder: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"image_path": f"img_{i:02d}.png", "caption": "x"}) for i in range(3)]
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join([*lines[:2], "", "", "", "", '{"image_path": "a', '{"caption": 1}', lines[2]]))
    text = problems_of(path, folder)
    assert "metadata.jsonl line 7:" in text and "metadata.jsonl line 8: names no picture" in text
    plan = plan_of(path, folder, skip_broken_images=True)
    assert plan.image_count == 3
    assert "metadata.jsonl line 7:" in notes_of(plan)


def test_broken_objects(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{\n "img_00.png": {"caption": "x"},\n "img_01.png": oops\n}')
    assert "m.json line 3, column 16" in problems_of(path, folder)
    path.write_text('{\n "img_00.png": {"caption": "x"},\n "img_01.png": 5\n}')
    assert "m.json line 3: says nothing of img_01.png" in problems_of(path, folder)
    path.write_text("[]")
    assert "m.json is no object" in problems_of(path, folder)
    assert "was not found" in problems_of(tmp_path / "no.json", folder)


def test_pictures_that_are_gone_are_named(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", {"img_00.png": {"caption": "x"}, "lost.png": {"caption": "x"}})
    assert "lost.png cannot be read (no such file or directory)" in problems_of(path, folder)
    assert plan_of(path, folder, skip_broken_images=True).image_count == 1


def test_in_a_dataset_file(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "m.json", {"img_00.png": {"caption": "x"}, "img_01.png": {"tags": "y"}})
    config = tmp_path / "d.toml"
    subset = '[[datasets.subsets]]\nmetadata_file = "m.json"\nimage_dir = "set"\nnum_repeats = 3\n'
    config.write_text("[[datasets]]\n" + subset)
    plan = build_plan(settings(dataset_config=str(config)))
    assert [(p.caption, p.repeats) for p in plan.datasets[0].pictures] == [("x", 3), ("y", 3)]
    config.write_text(dataset_toml(plan))
    assert build_plan(settings(dataset_config=str(config))).datasets == plan.datasets
    config.write_text("[[datasets]]\n" + subset + '[[datasets.subsets]]\nimage_dir = "set"\n')
    with pytest.raises(InputError, match=r"line 6: Subsets with and without metadata_file cannot be mixed"):
        build_plan(settings(dataset_config=str(config)))
    config.write_text("[[datasets]]\n" + subset + "is_reg = true\n")
    with pytest.raises(InputError, match="is_reg and metadata_file cannot stand in one subset"):
        build_plan(settings(dataset_config=str(config)))
