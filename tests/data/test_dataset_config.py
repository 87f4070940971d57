"""Dataset files: precedence, levels, and messages with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data.config import dataset_toml
from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.errors import InputError
from tests.data.data_kit import add_picture, notes_of, settings


def write(folder: Path, text: str, name: str = "data.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def plan_from(path: Path, **values: object) -> DatasetPlan:
    return build_plan(settings(dataset_config=str(path), **values))


def problems_of(path: Path, **values: object) -> str:
    with pytest.raises(InputError) as caught:
        plan_from(path, **values)
    return caught.value.text()


@pytest.fixture
def folder(pictures: Callable[..., Path], tmp_path: Path) -> Path:
    pictures("set")
    return tmp_path


def test_precedence_and_zero_beats_settings(folder: Path) -> None:
    add_picture(folder / "other", "b.png")
    path = write(
        folder,
        """
[general]
flip_aug = true
keep_tokens = 3
caption_dropout_rate = 0.5

[[datasets]]
resolution = 128
batch_size = 2
keep_tokens = 2

[[datasets.subsets]]
image_dir = "set"
keep_tokens = 0
flip_aug = false
num_repeats = 4

[[datasets.subsets]]
image_dir = "other"
""",
    )
    (dataset,) = plan_from(path, keep_tokens=9, shuffle_caption=True, dataset_repeats=6).datasets
    first, second = dataset.subsets
    assert dataset.resolution == (128, 128) and dataset.batch_size == 2
    assert (first.captions.keep_tokens, first.flip_aug, first.num_repeats) == (0, False, 4)
    assert (second.captions.keep_tokens, second.flip_aug, second.num_repeats) == (2, True, 6)
    assert first.captions.shuffle_caption and first.captions.caption_dropout_rate == 0.5


def test_whole_numbers_are_taken_as_floats(folder: Path) -> None:
    path = write(
        folder,
        """
[[datasets]]
validation_split = 0
network_multiplier = 1
prior_loss_weight = 1
[[datasets.subsets]]
image_dir = "set"
caption_tag_dropout_rate = 0
token_warmup_step = 3
random_crop = false
""",
    )
    assert plan_from(path).datasets[0].subsets[0].captions.token_warmup_step == 3


def test_all_mistakes_are_told_with_their_lines(folder: Path) -> None:
    path = write(
        folder,
        """[general]
shufle_caption = true
enable_bucket = "yes"

[[datasets]]
resolution = 7
alpha_mask = true

[[datasets.subsets]]
image_dir = "sett"
num_repeats = 1.5

[[datasets.subsets]]
image_dir = "set"
caption_dropout_rate = 2
random_crop = true
metadata_file = "meta.json"
""",
    )
    text = problems_of(path)
    for line, part in (
        (2, "unknown key shufle_caption"),
        (3, "enable_bucket: expected true or false, got text ('yes')"),
        (6, "7 is out of range: from 64 to 16384"),
        (7, "alpha_mask cannot stand in [[datasets]]"),
        (10, "image_dir was not found: sett"),
        (11, "num_repeats: expected a whole number, got a number (1.5)"),
        (15, "2 is out of range: from 0 to 1"),
        (9, "cannot be mixed in one dataset"),
        (17, "metadata_file was not found"),
    ):
        assert any(row.startswith(f"{path}, line {line}:") and part in row for row in text.splitlines()), part
    assert "Did you mean shuffle_caption?" in text
    assert "Did you mean set" in text


def test_the_strength_of_the_network_belongs_to_a_dataset(folder: Path) -> None:
    text = '[[datasets]]\nnetwork_multiplier = 0.5\n[[datasets.subsets]]\nimage_dir = "set"\n'
    assert plan_from(write(folder, text)).datasets[0].network_multiplier == 0.5
    inside = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\nnetwork_multiplier = 0.5\n'
    assert "line 4: network_multiplier cannot stand in" in problems_of(write(folder, inside))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("custom_attributes = { diff_output = true }", "unknown key diff_output in custom_attributes"),
        ("custom_attributes = { diff_output_preservation = 1 }", "expected true or false"),
        ("face_crop_aug_range = [2.0]", "two numbers in brackets"),
        ("face_crop_aug_range = [4.0, 2.0]", "first number is larger"),
        ("face_crop_aug_range = [0.5, 2.0]", "0.5 is out of range"),
        ("metadata_file = 3", "expected text in quotes"),
        ("validation_split = 0.1", "validation_split cannot stand in [[datasets.subsets]]"),
    ],
)
def test_values_that_do_not_fit_are_told_with_their_line(folder: Path, line: str, part: str) -> None:
    path = write(folder, f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\n{line}\n')
    assert any("line 4" in row and part in row for row in problems_of(path).splitlines())


def test_custom_attributes_are_kept(folder: Path) -> None:
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\n[datasets.subsets.custom_attributes]\ndiff_output_preservation = true\n'
    plan = plan_from(write(folder, text))
    assert plan.datasets[0].subsets[0].custom_attributes == {"diff_output_preservation": True}
    assert plan_from(write(folder, dataset_toml(plan), "again.toml")).datasets == plan.datasets


@pytest.mark.parametrize("key", ["color_aug = true", "random_crop = true", "face_crop_aug_range = [2, 4.0]"])
def test_what_differs_from_visit_to_visit_cannot_be_cached(folder: Path, key: str) -> None:
    path = write(folder, f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\n{key}\n')
    assert plan_from(path).image_count == 4
    name = key.partition(" ")[0]
    assert f"{name} cannot be used with cached latents" in problems_of(path, cache_latents=True)


def test_a_cut_around_the_face_has_no_buckets(folder: Path) -> None:
    text = '[[datasets]]\nenable_bucket = true\n[[datasets.subsets]]\nimage_dir = "set"\nface_crop_aug_range = [2.0, 4.0]\n'
    assert "cannot be used with aspect buckets" in problems_of(write(folder, text))


def test_json_has_lines_too(folder: Path) -> None:
    data = {
        "general": {},
        "datasets": [{"subsets": [{"image_dir": "set"}, {"image_dir": "set2", "numrepeats": 2}]}],
    }
    path = write(folder, json.dumps(data, indent=1), "data.json")
    line = path.read_text().splitlines().index('     "numrepeats": 2') + 1
    assert f"line {line}: unknown key numrepeats" in problems_of(path)
    data["datasets"][0]["subsets"].pop()
    assert plan_from(write(folder, json.dumps(data), "good.json")).image_count == 4


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "has no [[datasets]]"),
        ("[[datasets]]\nresolution = 64\n", "line 1: Dataset 1 has no subsets"),
        ("[datasets]\nresolution = 64\n", "expected an array of tables"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir : "x"\n', "line 3, column"),
        ("[[datasets]]\nbatch_size = 1\nresolution = 64\nbatch_size = 2\n", "line 4, column 1: Key"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2\n", "line 2: A subset has no image_dir"),
        ("[[datasets]]\nresolution = 100\n[[datasets.subsets]]\nimage_dir = 'set'\n", "not a multiple of 8"),
        (
            "[[datasets]]\nresolution = [64, 64, 64]\n[[datasets.subsets]]\nimage_dir = 'set'\n",
            "[width, height]",
        ),
        (
            "[general]\nenable_bucket = true\nmax_bucket_reso = 512\n[[datasets]]\nresolution = 768\n[[datasets.subsets]]\nimage_dir = 'set'\n",
            "max_bucket_reso 512 is below the training size 768x768",
        ),
    ],
)
def test_files_that_cannot_work(folder: Path, text: str, part: str) -> None:
    assert part in problems_of(write(folder, text))


def test_a_missing_file_suggests_its_neighbour(folder: Path) -> None:
    write(folder, "", "dataset.toml")
    text = problems_of(folder / "dataset2.toml")
    assert "was not found" in text and "dataset.toml" in text


def test_paths_are_looked_for_beside_the_file_then_in_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_picture(folder / "here" / "pics", "a.png")
    add_picture(folder / "there" / "pics", "b.png")
    add_picture(folder / "there" / "more", "c.png")
    monkeypatch.chdir(folder / "there")
    text = (
        '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "pics"\n[[datasets.subsets]]\nimage_dir = "more"\n'
    )
    plan = plan_from(write(folder / "here", text))
    assert [p.path.name for p in plan.datasets[0].pictures] == ["a.png", "c.png"]


def test_the_plan_can_be_written_and_read_back(folder: Path) -> None:
    for name in ("10_sks dog", "2_"):
        add_picture(folder / "train" / name, "ü 1.png", (200, 100))
    add_picture(folder / "reg" / "1_dog", "r.png", caption=None)
    plan = build_plan(
        settings(
            train_data_dir=str(folder / "train"), reg_data_dir=str(folder / "reg"), enable_bucket=True, resolution="128,192",
            train_batch_size=3, shuffle_caption=True, keep_tokens=1, caption_prefix='say "hi"', flip_aug=True,
            alpha_mask=True, secondary_separator=";;;", prior_loss_weight=0.25, caption_tag_dropout_rate=0.1,
            color_aug=True, random_crop=True, validation_split=0.4, validation_seed=9,
        )
    )  # fmt: skip
    path = write(folder, dataset_toml(plan))
    again = plan_from(path)
    assert again.datasets == plan.datasets and again.validation == plan.validation


def test_several_datasets_and_numbers_of_subsets(folder: Path) -> None:
    text = "".join(
        f'[[datasets]]\nresolution = {side}\n[[datasets.subsets]]\nimage_dir = "set"\n' for side in (64, 128)
    )
    plan = plan_from(write(folder, text))
    assert [d.resolution for d in plan.datasets] == [(64, 64), (128, 128)]
    assert [d.pictures[0].id for d in plan.datasets] == ["0/img_00.png", "1/img_00.png"]
    assert plan.summary()["images"] == 4


def test_a_folder_named_twice_is_used_once(folder: Path) -> None:
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\nnum_repeats = 2\n[[datasets.subsets]]\nimage_dir = "set"\n'
    plan = plan_from(write(folder, text))
    assert plan.train_images == 8
    assert "stands twice" in notes_of(plan)


def test_masks_need_masked_loss_and_a_mask_for_each(folder: Path) -> None:
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\nconditioning_data_dir = "masks"\n'
    path = write(folder, text)
    for i in range(4):
        add_picture(folder / "masks", f"img_{i:02d}.png", caption=None)
    assert "need masked_loss" in problems_of(path)
    plan = plan_from(path, masked_loss=True)
    assert [p.mask_path for p in plan.datasets[0].pictures] == [
        folder / "masks" / f"img_{i:02d}.png" for i in range(4)
    ]
    (folder / "masks" / "img_01.png").unlink()
    add_picture(folder / "masks", "img_02.png", (64, 64), caption=None)
    text = problems_of(path, masked_loss=True)
    assert "1 picture without a mask: img_01.png" in text
    assert "Mask img_02.png is 64x64 px, another shape" in text


@pytest.mark.parametrize(
    ("resolution", "given", "longest"),
    [("512", None, 1024), ("1024", None, 4096), ("1024", 1024, 1024), ("256", None, 1024)],
)
def test_the_longest_side_is_raised_when_left_alone(
    folder: Path, resolution: str, given: int | None, longest: int
) -> None:
    add_picture(folder / "set", "large.png", (400, 300))
    line = f"max_bucket_reso = {given}\n" if given else ""
    text = f'[[datasets]]\nenable_bucket = true\n{line}[[datasets.subsets]]\nimage_dir = "set"\n'
    assert plan_from(write(folder, text), resolution=resolution).datasets[0].max_bucket_reso == longest


def test_cache_info_is_not_followed_and_said(folder: Path) -> None:
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\ncache_info = true\n'
    assert "cache_info" in notes_of(plan_from(write(folder, text)))
    assert not (folder / "set" / "metadata_cache.json").exists()


def test_a_mask_that_does_not_decode_is_found_before_the_start(folder: Path) -> None:
    path = write(
        folder, '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\nconditioning_data_dir = "masks"\n'
    )
    for i in range(4):
        mask = add_picture(folder / "masks", f"img_{i:02d}.png", caption=None)
    mask.write_bytes(mask.read_bytes()[:-200])
    assert "Mask img_03.png is cut off" in problems_of(path, masked_loss=True)


def test_nothing_to_train_on_is_an_error(folder: Path) -> None:
    path = write(folder, '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\nnum_repeats = 0\n')
    text = problems_of(path)
    assert "No picture is left to train on" in text and "num_repeats is 0" in text
