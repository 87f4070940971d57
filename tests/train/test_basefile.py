"""A base model that is replaced while a run uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import InputError
from backend.train.basefile import BaseWatch
from backend.train.loop import train
from tests.train.small import Events, draw_pictures, run_small, same, start


def test_a_run_goes_on_with_what_it_loaded_and_is_not_resumed_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base.safetensors"
    base.write_bytes(bytes(200_000))
    pictures = draw_pictures(tmp_path / "pictures")
    straight = run_small(pictures, tmp_path / "home")
    assert not straight.events.of("warning")

    session, position, events, run = start(pictures, tmp_path / "home", save_every_n_steps=2)
    base.write_bytes(bytes(100_000) + b"\1" * 100_000)
    _, position = train(session, position)
    session.saver.stopped(session, position)
    (warning,) = events.of("warning")
    assert "base.safetensors was changed" in warning["text"] and "goes on" in warning["text"]
    assert same(session.method.weights(), straight.weights)
    with pytest.raises(InputError, match=r"the base model was base\.safetensors") as caught:
        start(pictures, tmp_path / "home", run=run, max_train_steps=8)
    assert caught.value.problems[0].key == "pretrained_model_name_or_path"
    base.write_bytes(bytes(200_000))
    session, position, _, _ = start(pictures, tmp_path / "home", run=run, max_train_steps=8)
    assert position.step == 6, "put back, it is resumed"


def test_folders_are_watched_and_what_cannot_be_looked_at_is_not(tmp_path: Path) -> None:
    (tmp_path / "m" / "unet").mkdir(parents=True)
    file = tmp_path / "m" / "unet" / "model.safetensors"
    file.write_bytes(b"12")
    watch, nobody, events = BaseWatch(tmp_path / "m"), BaseWatch(tmp_path / "nothing"), Events()
    watch.look(events)
    nobody.look(events)
    assert not events.records
    file.write_bytes(b"123")
    watch.look(events)
    watch.look(events)
    assert len(events.of("warning")) == 1
