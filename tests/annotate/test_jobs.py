"""Jobs as a page starts them: plain data in, events out, and an end when asked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backend.annotate import jobs
from backend.annotate.__main__ import main
from backend.errors import InputError
from backend.jobs.events import read_events
from tests.annotate.onnx_kit import write_tagger
from tests.conftest import ROOT


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    return write_tagger(tmp_path / "model", [("hat", 0)], [[0]] * 3, [3])


def job_of(kind: str, **settings: Any) -> dict[str, Any]:
    return {"kind": kind, "settings": settings}


def events(folder: Path) -> dict[str, dict[str, Any]]:
    """The last record of each type."""
    return {record["type"]: record for record in read_events(folder / "events.jsonl")[0]}


def test_a_job_tells_how_far_it_is_and_what_came_of_it(folder: Path, tagger: Path, tmp_path: Path) -> None:
    job = job_of("tag", train_data_dir=str(folder), repo_id=str(tagger), debug=True, frequency_tags=True)
    (tmp_path / "annotate.json").write_text(json.dumps(job))
    assert main([str(tmp_path)]) == 0
    said = events(tmp_path)
    assert said["progress"]["done"] == said["progress"]["total"] == 6 and said["state"]["state"] == "finished"
    facts = said["result"]["facts"]
    assert facts["written"] == 6 and facts["counts"] == {"hat": 6} and facts["edit"] == 1
    notes = [
        record["text"] for record in read_events(tmp_path / "events.jsonl")[0] if record["type"] == "note"
    ]
    assert "pictures of 8 px" in notes[0] and "img_00.png: hat" in notes


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"kind": "paint"}, "unknown job paint"),
        ({"kind": "tag"}, "has no settings"),
        (job_of("tag", thesh=1), "unknown key thesh"),
        (job_of("tag", thresh="x"), "thresh: 'x' cannot be used"),
        (job_of("merge", train_data_dir="/x"), "out_json is missing"),
        (
            job_of("merge", train_data_dir="/x", out_json="/y", caption_extension="", tags_extension=""),
            "nothing to take in",
        ),
        (job_of("clean"), "train_data_dir is missing"),
        ({**job_of("clean", train_data_dir="/x"), "rules": [{}]}, "are needed"),
    ],
)
def test_jobs_that_cannot_be_done_say_why(job: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        jobs.run_job(job, lambda done, total: None, print)


def test_a_wrong_job_is_an_error_among_the_events(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job_of("tag", train_data_dir=str(tmp_path / "none"))))
    assert main([str(tmp_path / "job.json")]) == 2
    said = events(tmp_path)
    assert said["state"]["state"] == "failed" and "Folder not found" in said["error"]["problems"][0]["what"]
    for text in ("{", "[]"):
        (tmp_path / "job.json").write_text(text)
        with pytest.raises(InputError):
            main([str(tmp_path / "job.json")])


def test_metadata_is_merged_and_cleaned_by_jobs(folder: Path, tmp_path: Path) -> None:
    (folder / "img_00.caption").write_text("there is a dog")
    (folder / "img_00.txt").write_text("dog, dog")
    out, clean = tmp_path / "meta.json", tmp_path / "clean.json"
    found = jobs.run_job(
        job_of("merge", train_data_dir=str(folder), out_json=str(out)), lambda done, total: None, print
    )
    assert found["written"] == 2 and json.loads(out.read_text()) == {
        "img_00.png": {"caption": "there is a dog", "tags": "dog"}
    }
    tried = jobs.run_job({**job_of("clean", in_json=str(out)), "try": True}, lambda done, total: None, print)
    assert tried["changes"] == [("img_00.png", "caption", "there is a dog", "a dog")] and not clean.exists()
    job = job_of("clean", in_json=str(out), out_json=str(clean))
    assert jobs.run_job(job, lambda done, total: None, print)["written"] == 1
    assert json.loads(clean.read_text())["img_00.png"]["caption"] == "a dog"
    again = jobs.run_job(job, lambda done, total: None, print)
    assert again["kept"].startswith("clean-before-")
    with pytest.raises(InputError, match="written over itself"):
        jobs.run_job(job_of("clean", in_json=str(out), out_json=str(out)), lambda done, total: None, print)


def test_a_job_that_is_asked_to_end_ends_at_once_and_keeps_its_texts(
    folder: Path, tagger: Path, tmp_path: Path
) -> None:
    source = (folder / "img_00.png").read_bytes()
    for number in range(6, 3000):
        (folder / f"img_{number:04d}.png").write_bytes(source)
    job = job_of("tag", train_data_dir=str(folder), repo_id=str(tagger), max_data_loader_n_workers=1)
    (tmp_path / "annotate.json").write_text(json.dumps(job))
    process = subprocess.Popen(
        [sys.executable, "-m", "backend.annotate", str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 90
        while "progress" not in events(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    said = events(tmp_path)
    written = said["result"]["facts"]["written"]
    assert said["state"]["state"] == "stopped" and said["result"]["facts"]["stopped"]
    assert 0 < written < 3000 and len(list(folder.glob("*.txt"))) == written


def test_a_stop_in_the_control_file_is_heard(folder: Path, tagger: Path, tmp_path: Path) -> None:
    """What serves where a process cannot be sent a signal."""
    job = job_of("tag", train_data_dir=str(folder), repo_id=str(tagger))
    (tmp_path / "annotate.json").write_text(json.dumps(job))
    # Commands that were given before the job began are for an earlier one; this comes with the first picture.
    real = jobs.folders.describe_folder

    def with_stop(*arguments: Any, **options: Any) -> Any:
        (tmp_path / "control.jsonl").write_text('{"t": 1, "command": "stop_now"}\n')
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.folders, "describe_folder", with_stop)
        assert main([str(tmp_path)]) == 0
    said = events(tmp_path)
    assert said["state"]["state"] == "stopped" and said["result"]["facts"]["written"] == 1
    assert len(list(folder.glob("*.txt"))) == 1
