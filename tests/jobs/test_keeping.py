"""What is kept of runs: remarks, the trash, and two of them side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.jobs import trash
from backend.jobs.comparison import Difference, compare
from backend.jobs.events import EventLog
from backend.jobs.identity import ProcessIdentity
from backend.jobs.process import _add_attempt
from backend.jobs.remarks import Remarks, read_remarks, write_remarks
from backend.jobs.runs import Run, create_run, list_runs


def test_remarks_are_kept_trimmed_and_once(run: Run) -> None:
    assert read_remarks(run) == Remarks()
    kept = write_remarks(run, [" good ", "", "good", "two  words", "x" * 99], " eyes are\noff ")
    assert kept == Remarks(("good", "two words", "x" * 40), "eyes are\noff")
    assert read_remarks(run) == kept
    (run.path / "remarks.json").write_text('{"tags": [1, "a"], "note": 2}', encoding="utf-8")
    assert read_remarks(run) == Remarks(("a",), "")


def test_remarks_have_a_limit(run: Run) -> None:
    with pytest.raises(InputError, match="10,001 characters"):
        write_remarks(run, [], "x" * 10_001)
    with pytest.raises(InputError, match="21 tags"):
        write_remarks(run, map(str, range(21)), "")


def test_a_deleted_run_can_be_brought_back_whole(run: Run) -> None:
    root = run.path.parent
    (run.path / "samples" / "a.png").write_bytes(b"123")
    trash.throw_away(root, run)
    assert list_runs(root) == [] and not run.path.exists()
    (item,) = trash.deleted(root)
    assert (item.id, item.name) == (run.id, "my cat") and item.size > 3
    assert trash.bring_back(root, run.id) == run
    assert (run.path / "samples" / "a.png").read_bytes() == b"123"
    assert trash.deleted(root) == []


def test_two_runs_of_one_name_can_lie_in_the_trash(run: Run) -> None:
    root = run.path.parent
    trash.throw_away(root, run)
    again = create_run(root, "my cat", "")
    again.path.rename(run.path)
    trash.throw_away(root, run)
    assert len(trash.deleted(root)) == 2
    assert trash.empty(root) > 0
    assert trash.deleted(root) == []


def test_a_run_at_work_is_not_deleted_and_nothing_is_overwritten(run: Run) -> None:
    root = run.path.parent
    trash.throw_away(root, run)
    run.path.mkdir()
    with pytest.raises(InputError, match="in its place"):
        trash.bring_back(root, run.id)
    run.path.rmdir()
    trash.bring_back(root, run.id)
    _add_attempt(run, ProcessIdentity.of(os.getpid()), [], own_group=False)
    with pytest.raises(InputError, match="at work"):
        trash.throw_away(root, run)
    for wrong in ("..", "../x", "none"):
        with pytest.raises(InputError, match="not in the trash"):
            trash.bring_back(root, wrong)


def written(root: Path, name: str, config: str, dataset: str, losses: list[float], prompt: str) -> Run:
    run = create_run(root, name, config, dataset)
    log = EventLog(run.events)
    log.emit("plan", images=len(losses), steps=len(losses), buckets=[{"size": [64, 64], "count": 1}])
    for step, loss in enumerate(losses, 1):
        log.emit("step", step=step, total=len(losses), epoch=1, loss=loss, lr={"unet": 1e-4})
    for step in (len(losses), 0):
        log.emit("sample", path=f"samples/{step}.png", step=step, index=0, prompt=prompt)
    log.emit("sample", path="samples/c.png", step=1, index=1, prompt="common")
    log.close()
    return run


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    pictures = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/p/cats'\nnum_repeats = {}\n"
    one = written(
        tmp_path,
        "one",
        "[optimizer]\nlearning_rate = 1e-4\n[schedule]\nseed = 1",
        pictures.format(2),
        [0.5] * 4,
        "a cat",
    )
    two = written(
        tmp_path, "two", "[optimizer]\nlearning_rate = 2e-4\n[schedule]\nseed = 1\n[network]\nnetwork_dim = 8",
        pictures.format(3), [0.5, 0.1], "a dog",
    )  # fmt: skip
    found = compare(one, two)
    assert found.settings == [Difference("learning_rate", 1e-4, 2e-4), Difference("network_dim", None, 8)]
    assert Difference("images", 4, 2) in found.data
    assert Difference("/p/cats", "2 x", "3 x") in found.data
    assert not any(row.key == "buckets" for row in found.data)
    assert [bucket.last for bucket in found.curves[0]] == [1, 2, 3, 4]
    assert found.curves[1][-1].smooth < 0.5
    common, cat, dog = found.pictures
    assert [pair.prompt for pair in found.pictures] == ["common", "a cat", "a dog"]
    assert len(common.first) == len(common.second) == 1
    assert [sample.step for sample in cat.first] == [0, 4] and cat.second == ()
    assert [sample.step for sample in dog.second] == [0, 2]


def test_a_run_without_files_compares_with_nothing(run: Run, tmp_path: Path) -> None:
    (run.path / "config.toml").write_text("= broken", encoding="utf-8")
    found = compare(run, create_run(tmp_path, "empty", ""))
    assert found.settings == [] and found.curves == ([], []) and found.pictures == []
