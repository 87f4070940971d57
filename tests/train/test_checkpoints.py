"""Restore points: round trip to the bit, and never a torn or foreign one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch

from backend.errors import InputError, StorageFault
from backend.train import checkpoints
from backend.train.checkpoints import Position, State, load_state, newest_state, save_state


def state(step: int = 4) -> State:
    torch.manual_seed(step)
    weight = torch.nn.Parameter(torch.randn(8, 8))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.randn(8, 8)
    optimizer.step()
    return State(
        Position(step, 2, 3),
        {"a.weight": weight.detach()},
        {"optimizer": optimizer.state_dict(), "scaler": None},
        {"seed": 7},
    )


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    saved = state()
    save_state(tmp_path / "s", saved)
    found = load_state(tmp_path / "s")
    assert found.position == Position(4, 2, 3)
    assert found.facts == {"seed": 7}
    assert torch.equal(found.weights["a.weight"], saved.weights["a.weight"])
    for key, value in saved.optimizer["optimizer"]["state"][0].items():
        assert torch.equal(found.optimizer["optimizer"]["state"][0][key], value)


def test_a_newer_state_replaces_the_older_one_whole(tmp_path: Path) -> None:
    save_state(tmp_path / "s", state(4))
    save_state(tmp_path / "s", state(9))
    assert load_state(tmp_path / "s").position.step == 9
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt"])
def test_a_flipped_byte_is_found_and_the_one_before_is_used(tmp_path: Path, name: str) -> None:
    save_state(tmp_path / "a-state", state(4))
    save_state(tmp_path / "b-state", state(8))
    data = bytearray((tmp_path / "b-state" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b-state" / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=name):
        load_state(tmp_path / "b-state")
    newest, damaged = newest_state(tmp_path.iterdir())
    assert newest == tmp_path / "a-state"
    assert len(damaged) == 1 and name in damaged[0].what


def test_a_restore_point_without_content_is_none(tmp_path: Path) -> None:
    """As a power cut may leave it: names are there, and nothing in the files."""
    save_state(tmp_path / "old", state(4))
    save_state(tmp_path / "new", state(8))
    (tmp_path / "new" / "state.json").write_bytes(b"")
    assert newest_state(tmp_path.iterdir()) == (tmp_path / "old", [])


def test_one_that_was_being_replaced_still_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power goes between the two renames: nothing lies under the name itself."""
    save_state(tmp_path / "recovery", state(4))

    def power_cut(self: Path, target: Path) -> Path:
        if self.name.endswith(f"partial-{os.getpid()}"):
            raise KeyboardInterrupt
        return rename(self, target)

    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", power_cut)
        patch.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            save_state(tmp_path / "recovery", state(8))
    assert not (tmp_path / "recovery").exists()
    newest, damaged = newest_state(tmp_path.iterdir())
    assert newest is not None and not damaged and load_state(newest).position.step == 8
    (tmp_path / ".recovery.partial-1").mkdir()
    (tmp_path / ".recovery.partial-1" / "weights.safetensors").write_bytes(b"half")
    save_state(tmp_path / "recovery", state(12))
    assert load_state(tmp_path / "recovery").position.step == 12
    assert [path.name for path in tmp_path.iterdir()] == ["recovery"], "nothing is left of earlier attempts"


def test_a_write_that_breaks_off_leaves_the_older_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path / "s", state(4))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write_optimizer", full)
    with pytest.raises(Exception, match="the disk is full"):
        save_state(tmp_path / "s", state(9))
    assert load_state(tmp_path / "s").position.step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    save_state(tmp_path / "s", state())
    path = tmp_path / "s" / "state.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(InputError, match="version 99"):
        load_state(tmp_path / "s")
    assert json.loads(path.read_text())["version"] == 99


def test_folders_of_others_are_named_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "train_state.json").write_text("{}")
    with pytest.raises(InputError, match="sd-scripts"):
        load_state(tmp_path)
    (tmp_path / "train_state.json").unlink()
    with pytest.raises(InputError, match="no restore point"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "", "null", "[1]", '{"version"', '{"version": "1"}', '{"version": 1}', "\xff",
        '{"version": 1, "sha256": {}, "position": {"step": 4, "epoch": 2, "batch": 3}, "facts": {}}',
        '{"version": 1, "sha256": {"weights.safetensors": "", "optimizer.pt": ""}, "position": {"step": "4", '
        '"epoch": 2, "batch": 3}, "facts": {}}',
    ],
)  # fmt: skip
def test_a_state_file_that_holds_something_else_is_told_and_the_one_before_is_used(
    tmp_path: Path, content: str
) -> None:
    save_state(tmp_path / "old", state(2))
    save_state(tmp_path / "new", state(4))
    (tmp_path / "new" / "state.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="the restore point cannot be read") as caught:
        load_state(tmp_path / "new")
    assert caught.value.problems[0].next
    found, problems = newest_state([tmp_path / "old", tmp_path / "new"])
    assert found == tmp_path / "old" and len(problems) == bool(content), "an empty one counts as none"
    assert (tmp_path / "new" / "state.json").read_bytes() == content.encode("latin-1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_said_with_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path / "s", state(4))
    written = checkpoints._write_optimizer
    monkeypatch.setattr(
        checkpoints, "_write_optimizer", lambda _, content: written(Path("/dev/full"), content)
    )
    with pytest.raises(StorageFault) as caught:
        save_state(tmp_path / "s", state(9))
    (problem,) = caught.value.problems
    assert re.search(r"the disk is full: the restore point needs \d+ B, .* are free", problem.what)
    assert problem.where == str(tmp_path / "s") and "the earlier restore point is untouched" in problem.next
    assert load_state(tmp_path / "s").position.step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
