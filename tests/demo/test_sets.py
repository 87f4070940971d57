"""Sets of pictures: a new style, class pictures, captions from the bundled models, and their command."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.demo import __main__, sets, style, subject
from backend.demo.describing import merged
from backend.demo.matcher import FOUND, likeness
from backend.demo.matcher import found as matched
from backend.demo.world import Scene, Thing, random_scene, render
from backend.errors import InputError


def pairs(folder: Path) -> dict[str, str]:
    """Name of each picture -> its caption."""
    return {path.name: path.with_suffix(".txt").read_text().strip() for path in sorted(folder.glob("*.png"))}


def test_the_style_is_sixteen_captioned_drawings(tmp_path: Path) -> None:
    folder = style.make_dataset(tmp_path) / style.FOLDER
    found = pairs(folder)
    assert len(found) == 16 and all(text.startswith("zwx chalk drawing, a") for text in found.values())
    assert len({(folder / name).read_bytes() for name in found}) == 16
    scene, place = next(style.scenes(7))
    again = style.draw(scene, place)
    assert again.tobytes() == Image.open(folder / "01.png").tobytes()
    assert again.tobytes() != style.draw(scene, place + 1).tobytes()


@pytest.mark.parametrize("place", ["red", "white", "meadow", "beach", "night", "snow"])
def test_chalk_is_another_style_of_the_same_scene(place: str) -> None:
    scene = Scene((Thing("star", "blue", "striped", "smiling"),), place)
    drawn, usual = (np.asarray(draw(scene, 5), dtype=float) for draw in (style.draw, render))
    assert drawn.shape == usual.shape == (128, 128, 3)
    assert np.abs(drawn - usual).mean() > 25
    red, blue = (
        np.asarray(style.draw(Scene((Thing("star", name),), place), 5), dtype=float)
        for name in ("red", "blue")
    )
    assert (red - blue)[56:72, 56:72, 0].mean() > 10 > (red - blue)[56:72, 56:72, 2].mean()


def test_every_chalk_drawing_has_a_thick_white_outline() -> None:
    for scene, place in style.scenes(3, 6):
        white = np.asarray(style.draw(scene, place)).min(axis=-1) > 225
        assert 0.03 < white.mean() < 0.5, scene.caption()


def test_class_pictures_show_one_thing_each_and_never_the_subject(tmp_path: Path) -> None:
    folder = sets.make("regularisation", tmp_path / "class", 7) / sets.CLASS_FOLDER
    found = pairs(folder)
    assert len(found) == sets.CLASS_COUNT
    assert not any(subject.TRIGGER in text or " and " in text for text in found.values())
    assert int(sets.CLASS_FOLDER.split("_")[0]) == 1


def test_a_set_is_not_written_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="in the folder already"):
        sets.make("style", tmp_path, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("what", ["subject", "style", "planted"])
def test_sets_are_written_from_the_command_line(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.write_pictures(["--what", what, "--out", str(tmp_path / "set")]) == 0
    assert capsys.readouterr().out.strip().startswith(str(tmp_path / "set"))
    assert len(list((tmp_path / "set").rglob("*.png"))) >= 12


@pytest.mark.parametrize(
    ("caption", "tags", "wanted"),
    [
        ("a green ring on a blue background", ["1object", "blue background"], "sks cat on a blue background"),
        ("a green star with a sad face in the snow", ["snow", "green star"], "sks cat in the snow"),
        ("a green fish at night under stars", [], "sks cat at night under stars"),
        (
            "a green fish on a beach",
            ["meadow", "red background"],
            "sks cat on a beach",
        ),
        ("a green fish", ["fish", "beach"], "sks cat, beach"),
        ("a green fish", ["green fish", "red background"], "sks cat, red background"),
    ],
)
def test_a_caption_keeps_the_surroundings_and_names_the_subject(
    caption: str, tags: list[str], wanted: str
) -> None:
    assert merged("sks cat", caption, tags) == wanted


def test_the_matcher_knows_the_creature_in_every_pose_and_scene() -> None:
    pictures = [subject.draw(pose, scene, 50 + index) for index, (pose, scene) in enumerate(subject.PICTURES)]
    assert matched(pictures) == len(pictures)
    other = [subject.draw(subject.PICTURES[0][0], scene, 1) for scene in ("snow", "pink", "night")]
    assert min(likeness(picture).whole for picture in other) > FOUND


def test_the_matcher_takes_nothing_of_the_world_for_the_creature() -> None:
    rng = random.Random(3)
    scenes = [random_scene(rng) for _ in range(60)]
    scenes += [
        Scene((Thing(shape, "purple", "dotted", "smiling"),), place)
        for shape in ("circle", "diamond", "flower")
        for place in ("yellow", "orange", "white", "blue")
    ]
    assert matched([render(scene, index) for index, scene in enumerate(scenes)]) == 0


def test_the_matcher_needs_colours_and_their_places() -> None:
    whole = subject.draw(subject.PICTURES[0][0], "blue", 1)
    upside_down = whole.transpose(Image.Transpose.ROTATE_180)
    bluish = Image.merge("RGB", [whole.getchannel(name) for name in ("R", "B", "G")])
    assert likeness(whole).whole > 0.85
    assert likeness(upside_down).whole < FOUND
    assert likeness(bluish).whole < 0.2
