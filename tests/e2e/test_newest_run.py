"""How the tests find the run that they have just started."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.e2e.conftest import newest_run


def folder(runs: Path, name: str, created: float, touched: float) -> Path:
    path = runs / name
    path.mkdir(parents=True)
    (path / "job.json").write_text(json.dumps({"created": created}), encoding="utf-8")
    os.utime(path, (touched, touched))
    return path


def test_a_finished_run_that_is_touched_again_is_not_the_newest(tmp_path: Path) -> None:
    folder(tmp_path, "20260131-142500-first", created=100.0, touched=900.0)
    second = folder(tmp_path, "20260131-142501-second", created=101.0, touched=200.0)
    assert newest_run(tmp_path) == second


def test_of_runs_of_one_second_the_one_made_later_is_the_newest(tmp_path: Path) -> None:
    folder(tmp_path, "20260131-142500-b", created=100.1, touched=900.0)
    second = folder(tmp_path, "20260131-142500-a", created=100.7, touched=200.0)
    (tmp_path / "20260131-142500-c").mkdir()  # one that is being made
    assert newest_run(tmp_path) == second
