from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backend.generate import engine, pictures
from backend.generate.request import Request
from backend.settings import Settings
from backend.train.samples import Sampler
from tests.generate.fake import FakeModel


class Sink:
    def __init__(self) -> None:
        self.records: list[dict] = []

    def emit(self, type, /, **fields) -> None:
        self.records.append({"type": type, **fields})

    def of(self, kind: str) -> list[dict]:
        return [record for record in self.records if record["type"] == kind]


SMALL = Request("a cat", width=64, height=64, steps=2)


@pytest.fixture
def sink() -> Sink:
    return Sink()


def make(tmp_path: Path, sink: Sink, *prompts: Request, **options) -> Sampler:
    values = {"every_steps": 10, "every_epochs": None, "at_first": False, **options}
    model = values.pop("model", None) or FakeModel()
    return Sampler(
        list(prompts or (SMALL,)),
        folder=tmp_path / "samples",
        name="my cat",
        events=sink,
        model=model,
        **values,
    )


@pytest.mark.parametrize(
    "options, moments",
    [
        ({"every_steps": 10}, {(10, False, 1), (20, False, 1)}),
        ({"every_steps": None, "every_epochs": 2}, {(20, True, 2)}),
        ({"every_steps": None, "at_first": True}, {(0, False, 1)}),
        ({"every_steps": None}, set()),
    ],
)
def test_when_samples_are_due(tmp_path, sink, options, moments):
    sampler = make(tmp_path, sink, **options)
    asked = {
        (0, False, 1),
        (5, False, 1),
        (10, False, 1),
        (10, True, 1),
        (20, False, 1),
        (20, True, 2),
        (30, True, 3),
    }
    assert {
        moment for moment in asked if sampler.due(moment[0], epoch_end=moment[1], epoch=moment[2])
    } == moments


def test_a_sample_is_a_file_a_thumbnail_and_an_event(tmp_path, sink):
    make(tmp_path, sink, SMALL, Request("a dog", "bad", 128, 64, 5, 2, 3.0, "euler_a")).draw(10, 2)
    first, second = sink.of("sample")
    assert (second["step"], second["epoch"], second["index"], second["prompt"], second["seed"]) == (
        10,
        2,
        1,
        "a dog",
        5,
    )
    assert second["path"] == "samples/my cat_000010_01_5.png"
    with Image.open(tmp_path / second["path"]) as image:
        assert image.size == (128, 64)
    with Image.open(tmp_path / second["thumb"]) as image:
        assert max(image.size) <= 256 and image.format == "JPEG"
    text = pictures.parameters_of(tmp_path / second["path"])
    assert "Negative prompt: bad" in text and "Sampler: Euler a" in text and "Seed: 5" in text
    assert first["index"] == 0 and not sink.of("warning")


def test_a_prompt_without_a_seed_keeps_one_for_the_whole_run(tmp_path, sink):
    sampler = make(tmp_path, sink, SMALL, SMALL, seed=42)
    sampler.draw(10)
    sampler.draw(20)
    seeds = [record["seed"] for record in sink.of("sample")]
    assert seeds[:2] == seeds[2:] and seeds[0] != seeds[1]
    files = [tmp_path / record["path"] for record in sink.of("sample")]
    assert files[0].read_bytes() == files[2].read_bytes() and files[0] != files[2]


def test_drawing_twice_at_one_step_replaces_nothing(tmp_path, sink):
    sampler = make(tmp_path, sink)
    sampler.draw(10)
    sampler.draw(10)
    assert len({record["path"] for record in sink.of("sample")}) == 2


def test_random_streams_and_modes_are_as_before(tmp_path, sink):
    model = FakeModel()
    model.denoiser.train()
    network = torch.nn.Dropout()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    seen = []
    predict = model.predict
    model.predict = lambda *a: (seen.append(network.training), torch.rand(1), random.random(), predict(*a))[
        -1
    ]
    make(tmp_path, sink, model=model, network=network).draw(10)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert model.denoiser.training and network.training and set(seen) == {False}


@pytest.mark.parametrize(
    "error, words",
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (OSError(28, "No space left on device", "samples"), "No space left"),
        (ZeroDivisionError("odd"), "odd"),
    ],
)
def test_a_failure_is_a_warning_and_the_other_prompts_are_drawn(tmp_path, sink, monkeypatch, error, words):
    draw = engine.draw

    def failing(model, requests, **options):
        if requests[0].prompt == "bad":
            raise error
        return draw(model, requests, **options)

    monkeypatch.setattr(engine, "draw", failing)
    make(tmp_path, sink, Request("bad"), SMALL).draw(30)
    (warning,) = sink.of("warning")
    assert "step 30" in warning["text"] and "sample 1" in warning["text"] and words in warning["text"]
    assert warning["problem"]["next"] or warning["problem"]["detail"]
    assert [record["prompt"] for record in sink.of("sample")] == ["a cat"]


def test_an_unwritable_folder_is_a_warning(tmp_path, sink):
    (tmp_path / "samples").write_text("a file where the folder should be")
    make(tmp_path, sink).draw(10)
    assert len(sink.of("warning")) == 1 and not sink.of("sample")


def test_a_black_picture_is_flagged_with_its_cause(tmp_path, sink):
    model = FakeModel()
    model.decode_latents = lambda latents: -torch.ones(1, 3, 64, 64)
    make(tmp_path, sink, model=model).draw(10)
    (warning,) = sink.of("warning")
    assert "black" in warning["text"] and "half precision" in warning["text"] and "step 10" in warning["text"]
    assert sink.of("sample")


def test_notes_are_said_once(tmp_path, sink):
    sampler = make(tmp_path, sink, Request("x", width=513, height=700, steps=1))
    sampler.draw(10)
    sampler.draw(20)
    (note,) = sink.of("note")
    assert "513x700 became 512x696" in note["text"]


def settings(**values) -> Settings:
    return Settings.from_flat(values)


def test_settings_decide_prompts_and_moments(tmp_path, sink):
    wanted = settings(
        sample_prompt_text="a cat --s 3\n# no\na dog --ss heun",
        sample_every_n_steps=5,
        sample_every_n_epochs=2,
        sample_sampler="euler_a",
        clip_skip=2,
        max_token_length=150,
    )
    sampler = Sampler.from_settings(wanted, tmp_path, "run", sink, FakeModel())
    assert (sampler.every_steps, sampler.every_epochs) == (None, 2)
    assert [(r.prompt, r.sampler, r.clip_skip, r.max_token_length) for r in sampler.prompts] == [
        ("a cat", "euler_a", 2, 150),
        ("a dog", "heun", 2, 150),
    ]


def test_a_changed_prompt_file_is_read_again(tmp_path, sink):
    path = tmp_path / "p.txt"
    path.write_text("a cat --w 64 --h 64 --s 1")
    sampler = Sampler.from_settings(
        settings(sample_prompts=str(path), sample_every_n_steps=1), tmp_path, "r", sink, FakeModel()
    )
    sampler.draw(1)
    path.write_text("a dog --w 64 --h 64 --s 1 --d 3")
    sampler.draw(2)
    path.unlink()
    sampler.draw(3)
    assert [record["prompt"] for record in sink.of("sample")] == ["a cat", "a dog", "a dog"]
    (warning,) = sink.of("warning")
    assert "p.txt" in warning["problem"]["where"] and "step 3" in warning["text"]


def test_other_prompts_count_from_the_next_sample_on(tmp_path, sink):
    file = tmp_path / "prompts.txt"
    file.write_text("a bird --w 64 --h 64 --s 2\n", encoding="utf-8")
    asked = settings(sample_prompt_text="a cat --w 64 --h 64 --s 2", sample_prompts=str(file))
    sampler = Sampler.from_settings(asked, tmp_path, "run", sink, FakeModel())
    sampler.ask_for("a dog --w 64 --h 64 --s 2\na fish --w 64 --h 64 --s 2", step=7)
    sampler.draw(step=8)
    assert [record["prompt"] for record in sink.of("sample")] == ["a dog", "a fish", "a bird"]
    assert "step 7; now 3" in sink.of("note")[-1]["text"]


def test_a_broken_prompt_file_does_not_stop_the_start(tmp_path, sink):
    path = tmp_path / "p.json"
    path.write_text("[")
    sampler = Sampler.from_settings(
        settings(sample_prompts=str(path), sample_every_n_steps=1), tmp_path, "r", sink, FakeModel()
    )
    assert sampler.prompts == [] and len(sink.of("warning")) == 1
    path.write_text('["a cat --w 64 --h 64 --s 1"]')
    sampler.draw(1)
    assert len(sink.of("sample")) == 1


def test_a_stop_is_not_kept_waiting_for_pictures(tmp_path, sink):
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    prompts = [Request("a cat", width=64, height=64, steps=30)] * 3
    make(tmp_path, sink, *prompts, should_stop=stop).draw(5)
    assert not sink.of("sample") and not sink.of("warning")
    assert len(asked) < 10
