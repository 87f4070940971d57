"""What is told of many files alike is counted, and nothing is changed or passed over in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.data.plan import build_plan
from backend.data.report import SHOWN, Report
from backend.errors import InputError
from tests.data.data_kit import add_picture, noise_picture, notes_of, plan_of, settings


def problems_of(folder: Path, **values: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        plan_of(folder, **values)
    return [problem.text() for problem in caught.value.problems]


def test_the_first_of_a_kind_are_told_and_the_rest_is_counted() -> None:
    report = Report()
    for number in range(1000):
        report.note(f"{number} is small", where="here", kind="small")
        report.note(f"{number} is short", where="there", kind="small")
    told = [note.text() for note in report.notes]
    assert len(told) == 2 * (SHOWN + 1)
    assert "here: 0 is small" in told and f"here: {SHOWN} is small" not in told
    assert f"here: {1000 - SHOWN} more of this kind, the last one: 999 is small" in told


def test_what_has_no_kind_is_always_told() -> None:
    report = Report()
    for number in range(100):
        report.problem(str(number))
    assert len(report.problems) == 100


def test_many_tiny_pictures_animations_and_odd_captions_are_few_lines(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "ok.png")
    frames = [Image.new("RGB", (64, 64), (80 * i, 0, 0)) for i in range(3)]
    for number in range(40):
        Image.new("RGB", (1, 1)).save(folder / f"tiny{number}.png")
        frames[0].save(folder / f"moving{number}.gif", save_all=True, append_images=frames[1:])
        (folder / f"moving{number}.txt").mkdir()
    notes = notes_of(plan_of(folder, class_tokens="sks dog"))
    assert notes.count("1x1 px, smaller than 64") == SHOWN + 1
    assert notes.count("is an animation (3 frames)") == SHOWN + 1
    assert notes.count("is a folder, not a caption file") == SHOWN + 1
    assert notes.count("20 more of this kind, the last one") == 3


def test_many_captions_in_another_encoding_are_refused_in_few_lines(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number in range(30):
        path = add_picture(folder, f"{number:02d}.png")
        path.with_suffix(".txt").write_bytes("日本の犬".encode("shift-jis"))
    problems = problems_of(folder)
    assert sum("is not UTF-8" in problem for problem in problems) == SHOWN + 1
    assert any("10 more of this kind" in problem for problem in problems)
    assert "looks like Shift-JIS, line 1" in problems[0] and "--fix caption_encoding" in problems[0]


def test_many_masks_that_do_not_fit_are_refused_in_few_lines(tmp_path: Path) -> None:
    folder, masks = tmp_path / "set", tmp_path / "masks"
    masks.mkdir()
    for number in range(25):
        add_picture(folder, f"{number:02d}.png")
        Image.new("L", (64, 96), 255).save(masks / f"{number:02d}.png")
    config = tmp_path / "set.toml"
    subset = f'image_dir = "{folder.as_posix()}"\nconditioning_data_dir = "{masks.as_posix()}"\n'
    config.write_text(f"[[datasets]]\n[[datasets.subsets]]\n{subset}")
    with pytest.raises(InputError) as caught:
        build_plan(settings(dataset_config=str(config), masked_loss=True))
    problems = [problem.text() for problem in caught.value.problems]
    assert len(problems) == SHOWN + 1 and "another shape than 00.png" in problems[0]
    assert "Mend the mask" in problems[0]


def test_copies_of_a_picture_are_told_and_still_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    path = add_picture(folder, "a.png")
    add_picture(folder, "other.png")
    shutil.copy(path, folder / "b.png")
    shutil.copy(folder / "a.txt", folder / "b.txt")
    plan = plan_of(folder)
    assert "1 picture is there more than once: a.png = b.png" in notes_of(plan)
    assert len(plan.datasets[0].pictures) == 3


def test_a_caption_of_a_face_crop_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    noise_picture((100, 100)).save(_made(folder) / "x_10_20_30_40.png")
    (folder / "x.txt").write_text("a face")
    plan = plan_of(folder)
    assert plan.datasets[0].pictures[0].caption == "a face"
    assert "without the face crop at its end: x.txt" in notes_of(plan)


def test_numbers_that_are_no_face_borrow_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    noise_picture((100, 100)).save(_made(folder) / "x_1_2_3_4.png")
    (folder / "x.txt").write_text("of another picture")
    add_picture(folder, "y.png")
    plan = plan_of(folder)
    assert "x_1_2_3_4.png have none" in notes_of(plan)
    assert [picture.caption for picture in plan.datasets[0].pictures] == ["", "a, b"]


def test_lines_of_an_image_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", caption=None)
    path = folder / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": "a.png", "text": "a red cube"}) + "\n")
    plan = build_plan(settings(train_data_dir=str(folder), in_json=str(path)))
    assert plan.datasets[0].pictures[0].caption == "a red cube"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x = " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("#" + "x" * 16_000_000, "has 16,000,001 bytes"),
    ],
)
def test_a_dataset_file_that_is_none_is_refused_quickly(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "set.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        build_plan(settings(dataset_config=str(path)))
