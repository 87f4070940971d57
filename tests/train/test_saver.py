"""Files of a run: names, what is removed, room for them, and patience when there is none."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.errors import EnvironmentFault, InputError, RunFault, StorageFault
from backend.settings import Settings
from backend.settings.length import Length
from backend.train import room
from backend.train.checkpoints import Position, load_state
from backend.train.manifest import Entry, Manifest
from backend.train.room import check_space, forecast, patiently
from backend.train.saver import Saver, free_name
from backend.train.sharding import Parts
from tests.train.small import draw_pictures, start


class Waiting:
    """A session whose user answers ``answers``, one at each wait."""

    parts = Parts()
    base_file = None

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.events = SimpleNamespace(emit=lambda type, /, **fields: self.said.append((type, fields)))

    def wait(self, seconds: float | None = None) -> str:
        return self.answers.pop(0)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [fields for type, fields in self.said if type == kind]

    def states(self) -> list[str]:
        return [fields["state"] for fields in self.told("state")]


def failing(times: int, fault: Exception) -> Any:
    left = [fault] * times

    def write() -> None:
        if left:
            raise left.pop()

    return write


def test_a_full_disk_pauses_the_run_until_there_is_room() -> None:
    session = Waiting("", "resume")
    patiently(session, failing(2, StorageFault("the disk is full: a needs 2 GB, 1 GB is free")))  # type: ignore[arg-type]
    assert session.states() == ["paused", "running", "paused", "running"]
    assert len(session.told("warning")) == 2 and "the disk is full" in session.told("warning")[0]["text"]


def test_a_drive_that_is_gone_is_waited_for_in_its_own_words() -> None:
    session = Waiting("resume")
    patiently(session, failing(1, EnvironmentFault("cannot write to /media/usb (permission denied)")))  # type: ignore[arg-type]
    assert session.states() == ["paused", "running"]
    assert "cannot write to /media/usb" in session.told("warning")[0]["text"]
    assert "bring the drive or the permission back and press Resume" in session.told("note")[0]["text"]


def test_a_stop_while_there_is_no_room_ends_with_the_fault() -> None:
    with pytest.raises(StorageFault, match="the disk is full"):
        patiently(Waiting("stop"), failing(1, StorageFault("the disk is full")))  # type: ignore[arg-type]


def test_other_faults_are_not_waited_for() -> None:
    session = Waiting()
    with pytest.raises(RunFault, match="not finite"):
        patiently(session, failing(1, RunFault("values are not finite")))  # type: ignore[arg-type]
    assert session.said == []


def needed(folder: Path, **options: Any) -> list[Any]:
    """The forecast of a run of 100 steps that trains 250,000 numbers."""
    return forecast(Settings.from_flat(options), Length(100, 2, 50, 50, 1), 250_000, folder, folder)


def test_files_that_will_not_fit_are_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=30_000_000)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    check_space(needed(tmp_path / "not" / "there" / "yet", save_every_n_steps=10))
    many = needed(tmp_path, save_every_n_steps=4, save_state=True)
    with pytest.raises(InputError, match=r"need about 106.0 MB; 30.0 MB are free"):
        check_space(many)
    check_space(needed(tmp_path, save_every_n_steps=4, save_state=True, save_last_n_steps=8))


def test_only_what_goes_onto_the_full_disk_is_told_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the output folder is on a small disk and the run's own is not."""
    small = tmp_path / "usb"
    monkeypatch.setattr(room, "_disk_of", lambda folder: 2 if small in (folder, *folder.parents) else 1)
    usage = shutil.disk_usage(tmp_path)
    sizes = {True: usage._replace(free=1_000), False: usage._replace(free=10**12)}
    small.mkdir()
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: sizes[folder == small])
    files = forecast(Settings.from_flat({}), Length(100, 2, 50, 50, 1), 250_000, small / "out", tmp_path)
    assert {one.kind for one in files} == {"result", "recovery"}
    with pytest.raises(InputError, match="are free") as caught:
        check_space(files)
    (problem,) = caught.value.problems
    assert problem.where == str(small / "out") and "result" in problem.why and "recovery" not in problem.why


def test_what_an_earlier_attempt_wrote_needs_no_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    files = needed(tmp_path, recovery_minutes=0)
    with pytest.raises(InputError, match="are free"):
        check_space(files)
    (tmp_path / "there").write_bytes(bytes(1_000_000))
    check_space(files, [tmp_path / "there"])


def test_files_of_others_keep_their_names(tmp_path: Path) -> None:
    own = Manifest(tmp_path / "manifest.json")
    (tmp_path / "cat.safetensors").touch()
    assert free_name(tmp_path / "cat.safetensors", own) == tmp_path / "cat (2).safetensors"
    own.add(Entry.of(tmp_path / "cat.safetensors", "result", "end", 1, 1))
    assert free_name(tmp_path / "cat.safetensors", own) == tmp_path / "cat.safetensors"


class Method:
    """Writes a text where a network would write weights."""

    def __init__(self) -> None:
        self.weight = {"a": torch.zeros(2)}

    def suffix(self) -> str:
        return ".safetensors"

    def save(self, path: Path, facts: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"step {facts.steps}")

    def weights(self) -> dict[str, torch.Tensor]:
        return self.weight


class Facts:
    num_epochs = 5

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def at(self, steps: int, epoch: int) -> Facts:
        return Facts(steps)


def session_with(**options: Any) -> Any:
    waiting: Any = Waiting()
    waiting.settings = Settings.from_flat({"output_name": "cat", "recovery_minutes": 0, **options})
    waiting.length = Length(50, 5, 10, 10, 1)
    waiting.method = Method()
    waiting.meter = SimpleNamespace(flush=lambda: None, table=SimpleNamespace(state=dict))
    waiting.ema, waiting.kept_weights = None, nullcontext
    waiting.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    waiting.accelerator = SimpleNamespace(scaler=None)
    waiting.identity = {"seed": 1}
    return waiting


def run_through(session: Any, tmp_path: Path, steps: range = range(1, 51)) -> Saver:
    saver = Saver(session.settings, tmp_path / "run", tmp_path / "out", Facts(), True)  # type: ignore[arg-type]
    (tmp_path / "run").mkdir(exist_ok=True)
    for step in steps:
        position = Position(step, (step - 1) // 10 + 1, (step - 1) % 10 + 1)
        saver.after_step(session, position)
        if step % 10 == 0:
            saver.after_epoch(session, position)
    return saver


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_last_files_and_states_stay(tmp_path: Path) -> None:
    session = session_with(
        save_every_n_epochs=1, save_last_n_epochs=2, save_last_n_epochs_state=1, save_state=True
    )
    saver = run_through(session, tmp_path)
    assert names(tmp_path / "out") == ["cat-000003.safetensors", "cat-000004-state", "cat-000004.safetensors"]
    assert [path.name for path in saver.results()] == ["cat-000003.safetensors", "cat-000004.safetensors"]
    assert load_state(tmp_path / "out" / "cat-000004-state").position.step == 40
    assert any("cat-000001.safetensors" in note["text"] for note in session.told("note"))


def test_files_that_are_not_the_runs_own_are_never_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "cat-000001.safetensors").write_text("an older run's")
    session = session_with(save_every_n_epochs=1, save_last_n_epochs=1)
    saver = run_through(session, tmp_path, range(1, 21))
    assert names(out) == ["cat-000001.safetensors", "cat-000002.safetensors"], (
        "its own (2) of epoch 1 is gone"
    )
    (out / "cat-000002.safetensors").write_text("exchanged by hand")
    run_through(session, tmp_path, range(21, 31))
    assert names(out) == ["cat-000001.safetensors", "cat-000002.safetensors", "cat-000003.safetensors"]
    assert (out / "cat-000002.safetensors").read_text() == "exchanged by hand"
    assert [path.name for path in saver.results()] == ["cat-000003.safetensors"]


def test_strange_files_in_a_restore_point_stay(tmp_path: Path) -> None:
    session = session_with(save_every_n_steps=10, save_last_n_steps=1, save_state=True)
    run_through(session, tmp_path, range(1, 11))
    (tmp_path / "out" / "cat-step00000010-state" / "notes.txt").write_text("mine")
    run_through(session, tmp_path, range(11, 21))
    assert names(tmp_path / "out" / "cat-step00000010-state") == ["notes.txt"]


def test_what_was_asked_for_stays(tmp_path: Path) -> None:
    session = session_with(save_every_n_steps=10, save_last_n_steps=1)
    saver = run_through(session, tmp_path, range(1, 13))
    saver.save_now(session, Position(12, 2, 2))
    run_through(session, tmp_path, range(13, 50))
    assert names(tmp_path / "out") == ["cat-step00000012.safetensors", "cat-step00000040.safetensors"]


def test_a_ratio_saves_at_the_ends_of_epochs(tmp_path: Path) -> None:
    run_through(session_with(save_n_epoch_ratio=2), tmp_path)
    assert names(tmp_path / "out") == ["cat-000002.safetensors", "cat-000004.safetensors"]


def test_a_file_that_cannot_be_removed_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_with(save_every_n_epochs=1, save_last_n_epochs=1)
    run_through(session, tmp_path, range(1, 11))
    with monkeypatch.context() as patch:

        def refuse(path: Path, missing_ok: bool = False) -> None:
            raise PermissionError(13, "in use")

        patch.setattr(Path, "unlink", refuse)
        patch.setattr("backend.train.manifest.write_text_atomic", lambda path, text: path.write_text(text))
        run_through(session, tmp_path, range(11, 21))
    assert "could not be removed: in use" in session.told("warning")[0]["text"]
    run_through(session, tmp_path, range(21, 31))
    assert names(tmp_path / "out") == ["cat-000003.safetensors"]


def test_a_stop_leaves_weights_and_both_restore_points(tmp_path: Path) -> None:
    session = session_with(save_state=True)
    run_through(session, tmp_path, range(1, 4)).stopped(session, Position(3, 1, 3))
    assert names(tmp_path / "out") == ["cat-step00000003-state", "cat-step00000003.safetensors"]
    assert load_state(tmp_path / "run" / "state" / "recovery").position == Position(3, 1, 3)


def test_the_list_of_files_waits_for_room_as_the_files_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = failing(1, StorageFault("the disk is full: manifest.json needs 175 B"))
    write = Manifest._write
    monkeypatch.setattr(Manifest, "_write", lambda self, entries: (full(), write(self, entries))[0])
    session = session_with(save_every_n_steps=2)
    session.answers = ["resume"]
    saver = run_through(session, tmp_path, range(1, 4))
    assert session.states() == ["paused", "running"]
    assert [path.name for path in saver.results()] == ["cat-step00000002.safetensors"]


def test_a_disk_that_is_too_small_is_told_before_pictures_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = draw_pictures(tmp_path / "p" / "1_sks dog").parent
    asked: list[str] = []
    monkeypatch.setattr("backend.train.build.fill_caches", lambda *_, **__: asked.append("encoded"))
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"the run's files need about .*; 1.0 kB are free"):
        start(pictures, tmp_path, cache_latents=True, save_every_n_steps=1)
    assert asked == []
