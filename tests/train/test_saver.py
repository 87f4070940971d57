"""Files of a run: room for them, and patience when there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.errors import InputError, RunFault, StorageFault
from backend.settings import Settings
from backend.settings.length import Length
from backend.train import saver
from backend.train.saver import check_space, free_name, patiently


class Waiting:
    """A session whose user answers ``answers``, one at each wait."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.events = SimpleNamespace(emit=lambda type, /, **fields: self.said.append((type, fields)))

    def wait(self, seconds: float | None = None) -> str:
        return self.answers.pop(0)

    def states(self) -> list[str]:
        return [fields["state"] for type, fields in self.said if type == "state"]


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
    warnings = [fields for type, fields in session.said if type == "warning"]
    assert len(warnings) == 2 and "the disk is full" in warnings[0]["text"]


def test_a_stop_while_there_is_no_room_ends_with_the_fault() -> None:
    with pytest.raises(StorageFault, match="the disk is full"):
        patiently(Waiting("stop"), failing(1, StorageFault("the disk is full")))  # type: ignore[arg-type]


def test_other_faults_are_not_waited_for() -> None:
    session = Waiting()
    with pytest.raises(RunFault, match="not finite"):
        patiently(session, failing(1, RunFault("values are not finite")))  # type: ignore[arg-type]
    assert session.said == []


def planned(steps: int, **settings: Any) -> Any:
    weights = {"a": torch.zeros(250_000)}
    return SimpleNamespace(
        method=SimpleNamespace(weights=lambda: weights),
        settings=Settings.from_flat(settings),
        length=Length(steps, 2, steps // 2, steps // 2, 1),
    )


def test_files_that_will_not_fit_are_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=30_000_000)
    monkeypatch.setattr(saver.shutil, "disk_usage", lambda _: usage)
    check_space(planned(100, save_every_n_steps=10), tmp_path / "not" / "there" / "yet")
    with pytest.raises(InputError, match=r"need about 107 MB; 30.0 MB are free|need about 107.0 MB"):
        check_space(planned(100, save_every_n_steps=4, save_state=True), tmp_path)


def test_files_of_others_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "cat.safetensors").touch()
    assert free_name(tmp_path / "cat.safetensors", {}) == tmp_path / "cat (2).safetensors"
    own = {str(tmp_path / "cat.safetensors"): "result"}
    assert free_name(tmp_path / "cat.safetensors", own) == tmp_path / "cat.safetensors"
