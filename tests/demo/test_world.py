"""The demo world: the same scene and seed give the same picture; captions say what is drawn."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from backend.demo.world import BACKGROUNDS, COLOURS, SCENES, SHAPES, Scene, Thing, random_scene, render


def mean_colour(picture: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    return np.asarray(picture.crop(box), dtype=float).mean(axis=(0, 1))


def test_a_scene_and_a_seed_decide_the_picture() -> None:
    scene = random_scene(random.Random(3))
    one, same, other = (render(scene, seed) for seed in (5, 5, 6))
    assert one.size == (128, 128) and one.mode == "RGB"
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_seed_draws_the_same_scenes_in_every_process() -> None:
    code = (
        "import random; from backend.demo.world import *; import hashlib\n"
        "rng = random.Random(11); scenes = [random_scene(rng) for _ in range(5)]\n"
        "print([s.caption() for s in scenes], hashlib.sha256(render(scenes[0], 1).tobytes()).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rng = random.Random(11)
    scenes = [random_scene(rng) for _ in range(5)]
    digest = hashlib.sha256(render(scenes[0], 1).tobytes()).hexdigest()
    assert found.strip() == f"{[scene.caption() for scene in scenes]} {digest}"


def test_the_world_loads_no_torch() -> None:
    code = "import sys, backend.demo.world; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("scene", "caption", "tags"),
    [
        (
            Scene((Thing("star", "red"),), "blue"),
            "a red star on a blue background",
            ["1object", "star", "red star", "big", "blue background"],
        ),
        (
            Scene((Thing("fish", "orange", "striped", "sad", "small"),), "beach"),
            "a small orange striped fish with a sad face on a beach",
            ["1object", "fish", "orange fish", "striped", "sad", "small", "beach"],
        ),
        (
            Scene((Thing("ring", "teal"), Thing("moon", "pink")), "orange"),
            "a teal ring and a pink moon on an orange background",
            ["2objects", "ring", "teal ring", "big", "moon", "pink moon", "orange background"],
        ),
    ],
)
def test_captions_and_tags(scene: Scene, caption: str, tags: list[str]) -> None:
    assert scene.caption() == caption
    assert scene.tags() == tags


@pytest.mark.parametrize("colour", COLOURS)
def test_a_thing_has_its_colour_in_the_middle(colour: str) -> None:
    background = "white" if colour != "white" else "black"
    picture = render(Scene((Thing("circle", colour),), background), 1)
    assert np.abs(mean_colour(picture, (54, 54, 74, 74)) - COLOURS[colour]).max() < 3
    assert np.abs(mean_colour(picture, (0, 0, 8, 8)) - COLOURS[background]).max() < 12


def test_every_shape_and_every_background_looks_different() -> None:
    shapes = {render(Scene((Thing(shape, "red"),), "white"), 1).tobytes() for shape in SHAPES}
    grounds = {
        render(Scene((Thing("circle", "red"),), name), 1).tobytes() for name in BACKGROUNDS if name != "red"
    }
    assert len(shapes) == len(SHAPES)
    assert len(grounds) == len(BACKGROUNDS) - 1


def test_scenes_drawn_at_random_never_hide_their_thing() -> None:
    rng = random.Random(1)
    scenes = [random_scene(rng) for _ in range(400)]
    assert all(thing.colour != scene.background for scene in scenes for thing in scene.things)
    assert {len(scene.things) for scene in scenes} == {1, 2}
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    lonely = [random_scene(rng, plain=1.0, two=0.0) for _ in range(50)]
    assert all(scene.things == (Thing(scene.things[0].shape, scene.things[0].colour),) for scene in lonely)
    assert set(SCENES) & {scene.background for scene in lonely}
