"""Options given beside ``--resume``: what is refused changes nothing of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from backend.errors import InputError
from backend.jobs.runs import Run, create_run
from backend.settings import read_toml
from backend.train.amend import amend
from backend.train.checkpoints import Position, State, save_state

CONFIG = "network_dim = 4\nlearning_rate = 1e-3\nmax_train_steps = 2\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create_run(tmp_path, "cat", CONFIG)
    facts = {"settings": {"network_dim": 4, "learning_rate": 1e-3, "max_train_steps": 2}}
    point = State(Position(2), {"a": torch.ones(3)}, {"optimizer": {}}, facts)
    save_state(made.path / "state" / "recovery", point)
    return made


def test_what_the_restore_point_cannot_live_with_is_not_written(run: Run) -> None:
    with pytest.raises(InputError, match="network_dim was 4 when the restore point was made and is 8 now"):
        amend(run, ["--network_dim=8", "--max_train_steps=4"])
    assert run.config.read_text(encoding="utf-8") == CONFIG, "so that the run can still be resumed"
    amend(run, ["--learning_rate=5e-4", "--max_train_steps=4", "--network_dim=4"])
    kept = read_toml(run.config)
    assert (kept.optimizer.learning_rate, kept.schedule.max_train_steps, kept.network.network_dim) == (
        5e-4,
        4,
        4,
    )


@pytest.mark.parametrize("damage", ["byte", "version"])
def test_a_restore_point_that_cannot_be_used_is_told_for_what_it_is(run: Run, damage: str) -> None:
    point = run.path / "state" / "recovery"
    file = point / ("optimizer.pt" if damage == "byte" else "state.json")
    if damage == "byte":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    before = file.read_bytes()
    words = r"optimizer\.pt does not match its checksum" if damage == "byte" else "version 99[\\s\\S]*update"
    with pytest.raises(InputError, match=words):
        amend(run, ["--max_train_steps=4"])
    assert file.read_bytes() == before and run.config.read_text(encoding="utf-8") == CONFIG


def test_restore_points_beside_results_count_too(run: Run, tmp_path: Path) -> None:
    (run.path / "state" / "recovery").rename(tmp_path / "r2-state")
    with pytest.raises(InputError, match="no restore point"):
        amend(run, ["--max_train_steps=4"])
    entry = {"path": str(tmp_path / "r2-state"), "kind": "state", "moment": "end", "step": 2, "epoch": 1}
    (run.path / "manifest.json").write_text(json.dumps([{**entry, "stamp": [1, 1]}]))
    amend(run, ["--max_train_steps=4"])
    assert read_toml(run.config).schedule.max_train_steps == 4
