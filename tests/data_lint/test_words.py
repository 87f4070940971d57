"""Spellings of the trigger word, tags, and prints of pictures."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from backend.data.lint import lint
from backend.data.lint.about_words import one_apart
from backend.data.lint.prints import Prints, groups, prints
from backend.demo.world import random_scene, render


@pytest.mark.parametrize("other", ["zorvk", "zorvekk", "zorvez", "zrovek", "orvek"])
def test_one_letter_apart(other: str) -> None:
    assert one_apart("zorvek", other) and one_apart(other, "zorvek")


@pytest.mark.parametrize("other", ["zorvek", "zorv", "zrovke", "robot", ""])
def test_not_one_letter_apart(other: str) -> None:
    assert not one_apart("zorvek", other)


def spoken(tmp_path: Path, trigger: str, *captions: str) -> dict[str, list[str]]:
    """Rule -> details, of a folder with these captions."""
    folder = tmp_path / "set"
    folder.mkdir()
    rng = random.Random(1)
    for i, caption in enumerate(captions):
        render(random_scene(rng), i).resize((512, 512)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(caption, encoding="utf-8")
    found = lint(folder, trigger=trigger)
    return {one.rule: [example.detail for example in one.examples] for one in found.findings}


def test_a_short_trigger_is_not_mixed_up_with_words(tmp_path: Path) -> None:
    found = spoken(tmp_path, "sks", "sks dog", "a dog below the sky")
    assert found == {"trigger_missing": ["'sks' is missing"]}


@pytest.mark.parametrize("spelling", ["blue_fox", "Blue Fox", "bluefox", "blue-fox", "blue foxx"])
def test_other_spellings(tmp_path: Path, spelling: str) -> None:
    found = spoken(tmp_path, "blue fox", "blue fox, day", f"a {spelling}, night")
    assert found == {"trigger_spelling": [f"'{spelling}' for 'blue fox'"]}


def test_parts_of_other_words_are_no_trigger(tmp_path: Path) -> None:
    found = spoken(tmp_path, "ohwx", "ohwx man", "ohwxes in a row")
    assert found == {"trigger_missing": ["'ohwx' is missing"]}


def test_sentences_are_no_lists_of_tags(tmp_path: Path) -> None:
    captions = [
        f"sks dog, standing in the {place}, looking at the camera with great care" for place in "abcdef"
    ]
    assert spoken(tmp_path, "sks", *captions) == {}


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def alike(one: Image.Image, other: Image.Image) -> bool:
    looks = [prints(np.asarray(picture)) for picture in (one, other)]
    return groups(["a", "b"], looks) == [[0, 1]]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    data = pytest.importorskip("skimage.data")
    return Image.open(Path(data.__file__).parent / "coffee.png").convert("RGB")


def test_the_same_picture_saved_otherwise_is_known(photo: Image.Image) -> None:
    assert alike(photo, jpeg(photo, 40))
    assert alike(photo, photo.resize((300, 200)))
    assert alike(photo, ImageEnhance.Brightness(photo).enhance(1.08))


def test_other_colours_and_other_pictures_are_not(photo: Image.Image) -> None:
    red, green, blue = photo.split()
    assert not alike(photo, Image.merge("RGB", (blue, green, red)))
    assert not alike(photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def test_no_two_of_many_different_pictures_are_alike() -> None:
    rng = random.Random(5)
    scenes = list({scene.caption(): scene for scene in (random_scene(rng) for _ in range(300))}.values())
    looks = [prints(np.asarray(render(scene, i))) for i, scene in enumerate(scenes)]
    assert len(groups([str(i) for i in range(len(looks))], looks)) <= 2  # of 40,000 pairs


def test_groups_reach_over_blocks() -> None:
    numbers = np.random.default_rng(0).integers(0, 2**62, (3000, 2))
    looks = [Prints(int(low), int(slope), bytes(48)) for low, slope in numbers]
    looks[2900] = looks[3]
    digests = [str(i) for i in range(3000)]
    digests[2999] = "3"
    assert groups(digests, looks) == [[3, 2900, 2999]]
