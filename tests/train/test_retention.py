"""Which files of a run are kept, against sd-scripts' own counting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.settings import Settings
from backend.settings.length import Length
from backend.train.manifest import Entry, Manifest
from backend.train.retention import Retention
from backend.train.room import forecast


def entry(number: int, moment: Any, kind: Any = None) -> Entry:
    step, epoch = (number, 1) if moment != "epoch" else (number * 100, number)
    return Entry(f"{kind or moment}-{number}", kind or moment, moment, step, epoch, (1, 1))


def left(
    options: dict[str, Any], moment: str, numbers: list[int], kind: Any = None, epochs: int = 10
) -> list[int]:
    """Numbers of the files that lie on the disk after those of ``numbers`` were written in turn."""
    retention = Retention.of(Settings.from_flat(options).saving, epochs)
    there: list[Entry] = []
    for number in numbers:
        new = entry(number, moment, kind)
        there.append(new)
        gone = retention.outdated(there, new)
        there = [one for one in there if one not in gone]
    return [one.step if moment == "step" else one.epoch for one in there]


EPOCHS = {"save_every_n_epochs": 2, "save_state": True}
STEPS = {"save_every_n_steps": 10, "save_state": True}


@pytest.mark.parametrize(
    ("options", "moment", "written", "kind", "kept"),
    [
        (EPOCHS, "epoch", [2, 4, 6, 8], None, [2, 4, 6, 8]),
        ({**EPOCHS, "save_last_n_epochs": 2}, "epoch", [2, 4, 6, 8], None, [6, 8]),
        ({**EPOCHS, "save_last_n_epochs": 1}, "epoch", [2, 4, 6], None, [6]),
        # every 10 steps, last 30: at step 50 the file of step 10 goes, four remain
        ({**STEPS, "save_last_n_steps": 30}, "step", [10, 20, 30, 40], None, [10, 20, 30, 40]),
        ({**STEPS, "save_last_n_steps": 30}, "step", [10, 20, 30, 40, 50], None, [20, 30, 40, 50]),
        ({**STEPS, "save_last_n_steps": 1}, "step", [10, 20, 30], None, [30]),
        ({**STEPS, "save_last_n_steps": 10}, "step", [10, 20, 30], None, [20, 30]),
        ({**STEPS, "save_last_n_step_files": 3}, "step", [10, 20, 30, 40, 50], None, [30, 40, 50]),
        # restore points follow their own option, or that of the files
        ({**EPOCHS, "save_last_n_epochs": 2}, "epoch", [2, 4, 6], "state", [4, 6]),
        ({**EPOCHS, "save_last_n_epochs": 3, "save_last_n_epochs_state": 1}, "epoch", [2, 4, 6], "state", [6]),
        ({**EPOCHS, "save_last_n_epochs": 3, "save_last_n_epochs_state": 1}, "epoch", [2, 4, 6], None, [2, 4, 6]),
        ({**STEPS, "save_last_n_steps_state": 10}, "step", [10, 20, 30], "state", [20, 30]),
        ({**STEPS, "save_last_n_step_files": 1}, "step", [10, 20], "state", [20]),
    ],
)  # fmt: skip
def test_what_stays(
    options: dict[str, Any], moment: str, written: list[int], kind: str | None, kept: list[int]
) -> None:
    assert left(options, moment, written, kind) == kept


@pytest.mark.parametrize(("epochs", "ratio", "every"), [(10, 3, 3), (10, 20, 1), (10, 1, 10), (100, 4, 25)])
def test_a_ratio_divides_the_epochs_and_wins(epochs: int, ratio: int, every: int) -> None:
    saving = Settings.from_flat({"save_n_epoch_ratio": ratio, "save_every_n_epochs": 7}).saving
    assert Retention.of(saving, epochs).every_epochs == every


def test_nothing_is_taken_that_was_asked_for_or_is_of_another_kind() -> None:
    retention = Retention.of(Settings.from_flat({"save_every_n_steps": 1, "save_last_n_steps": 1}).saving, 1)
    others = [
        entry(1, "asked", "step"),
        entry(1, "step", "state"),
        entry(1, "end", "result"),
        entry(1, "epoch"),
    ]
    assert retention.outdated(others, entry(9, "step")) == []
    assert retention.outdated([entry(1, "step")], entry(9, "asked", "step")) == []


@pytest.mark.parametrize(
    ("options", "steps", "epochs", "results", "states"),
    [
        ({}, 100, 10, 1, 0),
        ({"save_every_n_epochs": 1}, 100, 10, 10, 0),
        ({"save_every_n_epochs": 1, "save_last_n_epochs": 2}, 100, 10, 4, 0),
        ({"save_every_n_steps": 10, "save_last_n_steps": 30, "save_state": True}, 100, 10, 6, 6),
        ({"save_every_n_steps": 10, "save_last_n_step_files": 2}, 100, 10, 4, 0),
        ({"save_every_n_steps": 1, "save_state": True, "save_last_n_steps_state": 3}, 100, 10, 100, 6),
        ({"save_state_on_train_end": True}, 100, 10, 1, 1),
    ],
)
def test_room_is_counted_with_what_is_removed(
    options: dict[str, Any], steps: int, epochs: int, results: int, states: int, tmp_path: Path
) -> None:
    settings = Settings.from_flat({**options, "recovery_minutes": 0, "save_precision": "fp16"})
    length = Length(steps, epochs, steps // epochs, steps // epochs, 1)
    found = {one.kind: one for one in forecast(settings, length, 1000, tmp_path, tmp_path)}
    assert found["result"].count == results and found["result"].size == 2000
    assert (found["state"].count if states else 0) == states
    if states:
        assert found["state"].size == 12_000


@pytest.mark.parametrize("last", [1, 7, 10, 30, 35])
@pytest.mark.parametrize("every", [1, 10, 13])
def test_never_more_files_than_were_counted(last: int, every: int) -> None:
    """The forecast against writing and pruning one by one."""
    saving = Settings.from_flat({"save_every_n_steps": every, "save_last_n_steps": last}).saving
    retention, there, most = Retention.of(saving, 1), list[Entry](), 0
    for step in range(every, 200, every):
        there.append(new := entry(step, "step"))
        most = max(most, len(there))
        gone = retention.outdated(there, new)
        there = [one for one in there if one not in gone]
    assert retention.most(Length(200, 1, 200, 200, 1), retention.files) == most


def test_a_manifest_knows_its_own_files_only_while_they_are_as_written(tmp_path: Path) -> None:
    manifest, own, other = Manifest(tmp_path / "manifest.json"), tmp_path / "own", tmp_path / "other"
    own.write_text("weights")
    other.write_text("weights")
    manifest.add(Entry.of(own, "epoch", "epoch", 10, 1))
    assert manifest.owns(own) and not manifest.owns(other)
    own.write_text("somebody else's")
    assert not manifest.owns(own)
    manifest.add(Entry.of(own, "epoch", "epoch", 10, 1))
    assert manifest.owns(own) and len(manifest.entries()) == 1
    manifest.forget(manifest.entries())
    assert manifest.entries() == []


def test_a_damaged_manifest_owns_nothing(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text('[{"path": "a", "ki')
    assert manifest.entries() == [] and not manifest.owns(tmp_path / "a")
