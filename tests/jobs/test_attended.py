"""How a job in a process of its own ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError
from backend.jobs.attended import attend, interrupted
from backend.jobs.events import EventLog


def ended(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def states(path: Path) -> list[str]:
    return [record["state"] for record in ended(path) if record["type"] == "state"]


def test_a_result_is_told_and_the_log_closed(tmp_path: Path) -> None:
    assert attend(EventLog(tmp_path / "events.jsonl"), lambda: {"output": "x.safetensors", "n": 2}) == 0
    (result,) = [record for record in ended(tmp_path) if record["type"] == "result"]
    assert result["path"] == "x.safetensors" and result["facts"]["n"] == 2
    assert states(tmp_path) == ["running", "finished"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to a process without a window")
@pytest.mark.parametrize("by_command", [True, False])
def test_what_it_keeps_after_a_stop_is_not_disturbed_by_a_second_one(
    tmp_path: Path, by_command: bool
) -> None:
    kept: list[str] = []

    def work() -> Mapping[str, Any]:
        try:
            if by_command:
                raise interrupted()
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)  # comes with the command
            kept.append("text")
        return {"stopped": True}

    before = signal.getsignal(signal.SIGTERM)
    assert attend(EventLog(tmp_path / "events.jsonl"), work) == 0
    assert kept == ["text"] and states(tmp_path) == ["running", "stopped"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_errors_of_ours_and_of_the_system_are_told_with_their_codes(tmp_path: Path) -> None:
    def refuse() -> Mapping[str, Any]:
        raise InputError("no such folder", key="train_data_dir")

    def full() -> Mapping[str, Any]:
        raise OSError(28, "No space left on device")

    for number, (work, code) in enumerate(((refuse, 2), (full, 3))):
        place = tmp_path / str(number)
        place.mkdir()
        assert attend(EventLog(place / "events.jsonl"), work) == code
        assert states(place) == ["running", "failed"]
        (told,) = [record for record in ended(place) if record["type"] == "error"]
        assert told["problems"]


def test_a_fault_of_our_own_is_told_and_raised(tmp_path: Path) -> None:
    def broken() -> Mapping[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attend(EventLog(tmp_path / "events.jsonl"), broken)
    assert states(tmp_path) == ["running", "failed"]
