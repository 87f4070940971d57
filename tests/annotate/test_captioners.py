"""Every kind of captioner, tiny and random, and the bundled one, which knows the demo's world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.annotate import folders, models
from backend.annotate.captioners import Writing, open_captioner
from backend.annotate.captioners.drawing import Drawing
from backend.annotate.settings import CaptioningSettings
from backend.demo.reading import CAPTIONER
from backend.demo.world import Scene
from backend.errors import EnvironmentFault, InputError
from tests.annotate import captioner_kit


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    sizes = [(20, 30), (33, 17), (16, 16)]
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


NAMES = ["a.png", "b.png", "c.png"]
GREEDY = Writing(longest=8, shortest=3)
CHANCE = replace(GREEDY, chance=True, top_p=0.95)


@pytest.mark.parametrize("kind", captioner_kit.KINDS)
def test_each_kind_describes_and_the_batch_changes_nothing(
    kind: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    captioner = open_captioner(captioner_kit.make(kind, tmp_path / kind), "cpu")
    prompt = "<CAPTION>" if kind == "florence2" else ""
    for writing in (GREEDY, CHANCE, replace(GREEDY, beams=3, repetition_penalty=1.3)):
        writing = replace(writing, prompt=prompt)
        together = captioner.captions(pictures, NAMES, writing)
        alone = [
            captioner.captions([one], [name], writing)[0] for one, name in zip(pictures, NAMES, strict=True)
        ]
        assert together == alone and all(2 <= len(text.split()) <= 8 for text in together), together
    drawn = captioner.captions(pictures, NAMES, replace(CHANCE, prompt=prompt))
    assert drawn != captioner.captions(pictures, NAMES, replace(CHANCE, prompt=prompt, seed=7))
    assert drawn == captioner.captions(pictures, NAMES, replace(CHANCE, prompt=prompt))
    captioner.close()


@pytest.mark.parametrize(
    ("kind", "part"), [("blip", True), ("git", True), ("blip-2", False), ("llava", False)]
)
def test_a_prompt_begins_the_caption_or_is_a_question(
    kind: str, part: bool, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    captioner = open_captioner(captioner_kit.make(kind, tmp_path / kind), "cpu")
    found = captioner.captions(pictures, NAMES, replace(GREEDY, prompt="a red cat on the grass"))
    assert all(text.startswith("a red cat on the grass") == part for text in found), found
    assert all(len(text.split()) > 6 for text in found) or not part


def test_florence_takes_its_tasks_only(tmp_path: Path, pictures: list[Image.Image]) -> None:
    captioner = open_captioner(captioner_kit.make("florence2", tmp_path / "f"), "cpu")
    assert captioner.captions(pictures, NAMES, GREEDY)
    with pytest.raises(InputError, match="does not know the task") as caught:
        captioner.captions(pictures, NAMES, replace(GREEDY, prompt="a cat"))
    assert "<DETAILED_CAPTION>" in caught.value.text()


def test_drawing_follows_the_probabilities_within_top_p() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    names = [f"{number}.png" for number in range(4000)]
    ids = torch.zeros(len(names), 3, dtype=torch.long)
    rows = shares.log().expand(len(names), -1)
    drawn = Drawing(1, names, 0.9, 1.0)(ids, rows).argmax(-1).bincount(minlength=4) / len(names)
    # The smallest set that reaches 0.9 has three tokens; the sampling error is below 0.03 (4 sigma).
    assert drawn[3] == 0 and torch.allclose(drawn[:3], shares[:3] / 0.95, atol=0.03)
    only = Drawing(1, names[:50], 0.01, 1.0)(ids[:50], rows[:50]).argmax(-1)
    assert (only == 0).all()
    cold = Drawing(1, names, 1.0, 0.2)(ids, rows).argmax(-1).bincount(minlength=4) / len(names)
    assert cold[0] > 0.9


def test_the_bundled_captioner_says_what_is_there(folder: Path, drawn: dict[Path, Scene]) -> None:
    settings = CaptioningSettings(
        train_data_dir=str(folder),
        caption_weights="bundled",
        beam_search=True,
        batch_size=4,
        caption_extension="txt",
    )
    outcome = folders.caption(settings, lambda done, total: None, print, download=False)
    assert outcome.written == 6 and outcome.failed == []
    hits = total = 0
    for path, scene in drawn.items():
        said = set((folder / path.name).with_suffix(".txt").read_text().split())
        hits, total = (
            hits + len(said & set(scene.caption().split())),
            total + len(said | set(scene.caption().split())),
        )
    assert hits / total > 0.7


def test_more_tokens_than_the_model_has_places_for_are_not_asked(pictures: list[Image.Image]) -> None:
    places = json.loads((CAPTIONER / "config.json").read_text())["text_config"]["max_position_embeddings"]
    captioner = open_captioner(CAPTIONER, "cpu")
    found = captioner.captions(pictures[:1], NAMES[:1], Writing(longest=500, shortest=400))
    assert 20 < len(found[0].split()) <= places


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "names no model_type"),
        ("{}", "names no model_type"),
        ('{"model_type": "bert"}', "cannot be opened"),
        ('{"model_type": "blip"}', "cannot be opened"),
    ],
)
def test_a_folder_without_a_captioner_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        open_captioner(tmp_path, "cpu")
    assert said in caught.value.text() and tmp_path.name in caught.value.text()


def test_a_captioner_that_is_missing_says_how_to_get_it(folder: Path, home: Path) -> None:
    for weights, size in (
        ("https://x/models/model_large_caption.pth", "1.9 GB"),
        ("microsoft/git-base-coco", "710 MB"),
    ):
        settings = CaptioningSettings(train_data_dir=str(folder), caption_weights=weights)
        with pytest.raises(EnvironmentFault) as caught:
            folders.caption(settings, lambda done, total: None, print, download=True)
        assert size in caught.value.text() and str(models.captioners_folder()) in caught.value.text()
    place = models.captioners_folder() / "microsoft_git-base-coco"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    assert models.find_captioner("microsoft/git-base-coco") == place


@pytest.mark.parametrize("values", [{"min_length": 9, "max_length": 5}])
def test_lengths_that_contradict_each_other_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="above max_length"):
        Writing.of(CaptioningSettings(**values))


def test_writing_follows_the_settings() -> None:
    found = Writing.of(
        CaptioningSettings(
            num_beams=4, prompt=" a ", top_p=0.5, temperature=2.0, repetition_penalty=1.5, seed=9
        )
    )
    assert found == Writing("a", 1, True, 0.5, 2.0, 1.5, 5, 75, 9)
    assert Writing.of(CaptioningSettings(num_beams=4, beam_search=True)) == Writing("", 4, False)
