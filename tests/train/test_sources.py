"""Pictures that are changed or taken away while a run uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.jobs.control import ControlReader
from backend.train import sources
from backend.train.checkpoints import load_state
from backend.train.loop import Ending, train
from backend.train.session import Session
from tests.train.small import Trained, draw_pictures, same, start


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "p" / "1_sks dog")


def run_with(
    pictures: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    answer: Any = None,
    **options: Any,
) -> tuple[Trained, Ending]:
    """Train six steps; ``change`` happens after the first one, ``answer`` tells what the user does in a pause."""
    session, position, events, run = start(pictures.parent, home, **options)
    monkeypatch.setattr(sources, "MOST_OFTEN", 0.0)
    todo = [change]

    def poll(self: ControlReader) -> list[dict[str, Any]]:
        if todo:
            todo.pop()()
        return []

    monkeypatch.setattr(ControlReader, "poll", poll)
    monkeypatch.setattr(Session, "wait", lambda self, seconds=None: answer())
    ending, position = train(session, position)
    return Trained(session, position, events, run), ending


def told(trained: Trained, type: str) -> list[str]:
    return [record["text"] for record in trained.events.of(type)]


def redraw(path: Path, side: int = 64) -> None:
    Image.new("RGB", (side, side), (1, 200, 3)).save(path)


def test_with_cached_latents_a_run_keeps_what_it_encoded_and_says_so(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched, _ = run_with(pictures, tmp_path / "a", monkeypatch, lambda: None, cache_latents=True)
    assert not [text for text in told(untouched, "note") if "during the run" in text]

    def change() -> None:
        redraw(pictures / "1.png")
        (pictures / "2.png").unlink()

    trained, ending = run_with(pictures, tmp_path / "b", monkeypatch, change, cache_latents=True)
    assert ending is Ending.FINISHED and same(trained.weights, untouched.weights)
    changed, gone = (text for text in told(trained, "note") if "goes on with" in text)
    assert changed.startswith("1 picture was changed during the run") and changed.endswith(
        "at the start: 1.png"
    )
    assert gone.startswith("1 picture is no longer there, and the run goes on") and gone.endswith(": 2.png")


def test_without_a_cache_a_run_waits_for_a_picture_that_is_gone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched, _ = run_with(pictures, tmp_path / "a", monkeypatch, lambda: None)
    kept = (pictures / "2.png").read_bytes()

    def put_back() -> str:
        (pictures / "2.png").write_bytes(kept)
        return "resume"

    trained, ending = run_with(
        pictures, tmp_path / "b", monkeypatch, (pictures / "2.png").unlink, put_back, train_batch_size=1
    )
    assert ending is Ending.FINISHED and trained.position.step == 6
    (warning,) = trained.events.of("warning")
    assert "2.png is no longer there" in warning["text"] and warning["problem"]["where"] == str(pictures)
    assert any("paused: put the picture back and press Resume" in text for text in told(trained, "note"))
    assert [record["state"] for record in trained.events.of("state")] == ["paused", "running"]
    again, _ = run_with(pictures, tmp_path / "c", monkeypatch, lambda: None, train_batch_size=1)
    assert same(trained.weights, again.weights) and not same(again.weights, untouched.weights)


def test_a_stop_instead_leaves_a_restore_point(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, ending = run_with(
        pictures, tmp_path / "a", monkeypatch, (pictures / "2.png").unlink, lambda: "stop", train_batch_size=1
    )
    assert ending is Ending.STOPPED and 0 < trained.position.step < 6
    trained.session.saver.stopped(trained.session, trained.position)
    assert load_state(trained.run.path / "state" / "recovery").position == trained.position


def test_without_a_cache_a_changed_picture_is_told_and_one_of_another_size_waited_for(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, _ = run_with(pictures, tmp_path / "a", monkeypatch, lambda: redraw(pictures / "1.png"))
    (note,) = (text for text in told(trained, "note") if "during the run" in text)
    assert note == "1 picture was changed during the run, which goes on with what is there now: 1.png"

    def smaller() -> None:
        for path in pictures.glob("*.png"):
            redraw(path, 32)

    stopped, ending = run_with(pictures, tmp_path / "b", monkeypatch, smaller, lambda: "stop")
    assert ending is Ending.STOPPED
    assert "is 32x32 px now; it was 64x64 when the run began" in told(stopped, "warning")[0]
