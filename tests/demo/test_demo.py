"""The demo: its pictures, its bar, its sheet, and the whole of it once, small."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.demo import session, subject
from backend.demo.compare import Pair, sheet
from backend.demo.progress import Progress, bar, clock


class Terminal(io.StringIO):
    encoding = "cp1252"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_the_subject_is_twelve_different_pictures_with_captions(tmp_path: Path) -> None:
    folder = subject.make_dataset(tmp_path / "pictures") / subject.FOLDER
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 12
    arrays = [np.asarray(Image.open(path), dtype=np.int16) for path in pictures]
    assert {array.shape for array in arrays} == {(128, 128, 3)}
    differences = [np.abs(one - other).mean() for index, one in enumerate(arrays) for other in arrays[:index]]
    assert min(differences) > 2
    captions = [path.with_suffix(".txt").read_text().strip() for path in pictures]
    assert len(set(captions)) == 12
    assert all(text.startswith("sks creature, ") for text in captions)


def test_the_creature_is_in_every_picture() -> None:
    for index, (pose, scene) in enumerate(subject.PICTURES):
        pixels = np.asarray(subject.draw(pose, scene, index), dtype=np.int16)
        body = np.abs(pixels - np.array(subject.BODY)).max(axis=-1) < 12
        assert body.mean() > 0.1, pose.words


def test_the_same_seed_draws_the_same_picture_and_another_does_not() -> None:
    pose = subject.PICTURES[1][0]
    first, again, other = (subject.draw(pose, "meadow", seed).tobytes() for seed in (3, 3, 4))
    assert first == again != other


def test_the_dataset_is_read_as_trainers_read_it(tmp_path: Path) -> None:
    repeats, words = (subject.make_dataset(tmp_path) / subject.FOLDER).name.split("_", 1)
    assert int(repeats) == 10
    assert words == subject.TRIGGER


def test_bars_are_full_when_done_and_plain_on_old_consoles() -> None:
    assert bar(0.5, False) == "[" + "#" * 12 + "-" * 12 + "]"
    assert bar(2.0, True) == "[" + "█" * 24 + "]"
    assert clock(65.4) == "1:05"
    terminal = Terminal()
    progress = Progress(terminal)
    progress.show("Training", 1, 2, "loss 0.1")
    progress.say("next")
    text = terminal.getvalue()
    text.encode("cp1252")
    assert text.startswith("\r")
    assert text.endswith("\nnext\n")
    assert " 50%  loss 0.1" in text


def test_without_a_terminal_lines_are_few_and_whole() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for done in range(1, 101):
        progress.show("Training", done, 100)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[-1].endswith("100%")
    assert "\r" not in stream.getvalue()


def test_the_sheet_shows_before_left_and_after_right() -> None:
    red, blue = Image.new("RGB", (64, 64), (255, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 255))
    paper = sheet([Pair("a prompt", red, blue)] * 2, [Image.new("RGB", (64, 64), (0, 255, 0))])
    pixels = np.asarray(paper)
    columns = {name: np.argwhere((pixels == colour).all(axis=-1))[:, 1] for name, colour in
               {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}.items()}  # fmt: skip
    assert len(columns["red"]) == len(columns["blue"]) == 2 * 192 * 192
    assert columns["red"].max() < columns["blue"].min()
    assert len(columns["green"]) > 1000


def test_the_demos_settings_hold_together(tmp_path: Path) -> None:
    settings = session.demo_settings(tmp_path / "model.safetensors", tmp_path / "pictures", 7)
    flat = settings.flat()
    assert flat["max_train_steps"] == 7
    assert flat["train_data_dir"] == str(tmp_path / "pictures")
    assert flat["network_dim"] == 8
    assert flat["reg_data_dir"] is None


def run_demo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ATELIER_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-m", "backend.demo", *arguments], cwd=session.REPOSITORY, env=environment,
        text=True, capture_output=True, timeout=400, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.e2e
def test_the_whole_demo_makes_a_lora_and_a_before_and_after_picture(tmp_path: Path) -> None:
    from safetensors import safe_open

    done = run_demo(tmp_path, "--steps", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("*-demo-creature")
    (lora,) = run.rglob("demo-creature.safetensors")
    assert str(lora) in done.stdout
    with safe_open(lora, "pt") as file:
        assert len(list(file.keys())) > 500
        assert file.metadata()["ss_steps"] == "3"
    picture = run / "before-after.png"
    assert str(picture) in done.stdout
    assert Image.open(picture).size == (420, 870)
    assert "3/3" in done.stdout
    captions = [path.read_text().strip() for path in (tmp_path / "runs").rglob("10_sks creature/*.txt")]
    assert len(captions) == 12
    assert captions[0].startswith("sks creature") and "sks creature on a blue background" in captions
    assert not any("purple" in caption for caption in captions)


@pytest.mark.e2e
def test_a_training_that_fails_ends_the_demo_with_the_trainers_words(tmp_path: Path) -> None:
    model = tmp_path / "small-model.safetensors"
    model.write_bytes(b"this is no model at all" * 10)
    done = run_demo(tmp_path, "--steps", "3", "--model", str(model))
    assert done.returncode in (2, 4)
    assert "small-model.safetensors" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_steps_must_be_positive(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--steps", "0")
    assert done.returncode == 2
    assert "--steps must be 1 or more" in done.stderr
