"""Class pictures drawn by the base model before training, so many as are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.data.folders import class_pictures
from backend.data.plan import build_plan
from backend.errors import InputError
from backend.settings import Settings, check, check_files
from backend.train import class_pictures as drawing
from tests.train.small import Events, draw_pictures


@pytest.fixture
def values(tiny_sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(drawing, "STEPS", 2)
    folder = draw_pictures(tmp_path / "pictures" / "3_sks dog", count=2).parent
    return {
        "pretrained_model_name_or_path": str(tiny_sd15), "train_data_dir": str(folder), "resolution": 64,
        "reg_data_dir": str(tmp_path / "classes"), "num_class_images": 3, "class_prompt": "photo of a dog",
        "training_method": "dreambooth", "seed": 3,
    }  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_missing_is_drawn_and_what_is_there_stays(values: dict[str, Any], tmp_path: Path) -> None:
    settings, classes, events = Settings.from_flat(values), tmp_path / "classes", Events()
    before = build_plan(settings, verify=False, default_resolution=64)
    assert before.reg_images == 0 and any(
        "3 class pictures will be drawn" in note.what for note in before.notes
    )
    assert not check_files(settings) and not classes.exists()

    drawing.draw_class_pictures(settings, events)
    first = files(classes)
    names = [name for name in first if name.endswith(".png")]
    assert len(names) == 3 and {Path(name).parent.name for name in names} == {"1_photo of a dog"}
    assert len(set(first.values())) == 4, "three pictures that differ, and one caption for all"
    assert Image.open(classes / names[0]).size == (64, 64)
    assert first[names[0].replace(".png", ".caption")] == b"photo of a dog"
    assert events.of("progress")[-1]["done"] == 3
    plan = build_plan(settings, verify=False, default_resolution=64)
    regs = {p.caption for d in plan.datasets for p in d.pictures if p.subset.is_reg}
    assert plan.reg_images == 6 and regs == {"photo of a dog"}, "as many as the subject is seen"

    drawing.draw_class_pictures(settings, events)
    assert files(classes) == first
    drawing.draw_class_pictures(settings.replace(num_class_images=4), events)
    more = files(classes)
    assert class_pictures(classes) == 4 and first.items() <= more.items()


def test_new_pictures_go_beside_those_that_are_there(tmp_path: Path) -> None:
    assert drawing.place(tmp_path / "new", " a dog: big ") == tmp_path / "new" / "1_a dog_ big"
    (tmp_path / "2_dog").mkdir()
    assert drawing.place(tmp_path, "photo of a dog") == tmp_path / "2_dog"
    assert drawing.place(tmp_path / "2_dog", "photo of a dog") == tmp_path / "2_dog"
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "2_dog").rmdir()
    assert drawing.place(tmp_path, "photo of a dog") == tmp_path


def test_a_stop_ends_the_drawing(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(drawing.Halted):
        drawing.draw_class_pictures(Settings.from_flat(values), Events(), lambda: True)
    assert not list((tmp_path / "classes").rglob("*.png"))


@pytest.mark.parametrize("missing", ["reg_data_dir", "class_prompt"])
def test_the_folder_and_the_prompt_are_asked_for(values: dict[str, Any], missing: str) -> None:
    settings = Settings.from_flat({**values, missing: None})
    assert [error.key for error in check(settings).errors] == ["num_class_images"]


def test_nothing_is_drawn_where_the_settings_are_wrong(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        drawing.draw_class_pictures(Settings.from_flat({**values, "network_dim": 4}), Events())
    assert not (tmp_path / "classes").exists()
