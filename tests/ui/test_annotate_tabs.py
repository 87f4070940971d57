"""The Captioning and Tagging pages: what they ask, the jobs they start, and what they show of them."""

from __future__ import annotations

import random
import shlex
import time
from pathlib import Path

import pytest

from backend.annotate.jobs import KINDS
from backend.demo.world import random_scene, render
from backend.errors import InputError
from backend.jobs.events import read_events
from tests.annotate.onnx_kit import write_tagger
from ui.context import Context
from ui.drafts import Drafts
from ui.i18n import catalogue
from ui.tabs import captioning, tagging
from ui.tabs.annotating import AnnotatePage


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runs = tmp_path / "runs"
    runs.mkdir()
    return Context(tmp_path, runs, Drafts(tmp_path / "drafts"))


@pytest.fixture
def tags(context: Context) -> tagging.TaggingPage:
    return tagging.TaggingPage(context, "tagging", tagging.tasks())


@pytest.fixture
def captions(context: Context) -> AnnotatePage:
    return AnnotatePage(context, "captioning", captioning.TASKS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "my pictures"
    place.mkdir()
    for number in range(3):
        render(random_scene(random.Random(number)), number, 64).save(place / f"{number}.png")
    return place


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    return write_tagger(
        tmp_path / "model", [("long_hair", 0), ("miku", 4), ("general", 9)], [[0, 0, 0]] * 3, [0.8, -0.5, 2]
    )


def done(page: AnnotatePage):
    """Wait for the job that was started."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        job = page.look({})["job"]
        if not job["active"]:
            return job
        time.sleep(0.3)
    raise AssertionError("the job does not end")


def test_every_task_is_a_job_with_texts_and_a_tool(tags, captions, root) -> None:
    known = catalogue()
    for page in (tags, captions):
        opened = page.open_page({})
        assert opened["job"] is None and len(opened["tasks"]) == 2
        for task in page.tasks.values():
            assert task.kind in KINDS and (not task.trial or task.trial in KINDS)
            assert {
                f"annotate.{task.kind}",
                f"annotate.go_{task.kind}",
                f"annotate.about_{task.kind}",
            } <= known.keys()
            values = {"train_data_dir": "/a b", "out_json": "/o.json", "in_json": "/i.json"}
            lines = task.lines(
                {
                    key: value
                    for key, value in values.items()
                    if key in {o["key"] for o in opened["tasks"][0]["options"]} or task.kind != "tag"
                }
            )
            for line in lines:
                words = shlex.split(line)
                assert words[0] == "python" and (root / words[1]).is_file()


def test_scores_are_tried_and_texts_follow_the_form(tags, folder, tagger) -> None:
    values = {"train_data_dir": f' "{folder}" ', "repo_id": str(tagger), "remove_underscore": True}
    tags.start({"kind": "tag", "values": values, "try": True})
    with pytest.raises(InputError, match="at work"):
        tags.start({"kind": "tag", "values": values})
    job = done(tags)
    pictures = job["result"]["pictures"]
    assert job["trial"] and [one["name"] for one in pictures] == ["0.png", "1.png", "2.png"]
    assert pictures[0]["shown"].startswith("data:image/") and pictures[0]["text"] == "long hair, miku"
    assert [score[0] for score in pictures[0]["scores"]] == ["general", "long_hair", "miku"]
    assert not list(folder.glob("*.txt"))
    composed = tags.compose(
        {
            "kind": "tag",
            "values": {**values, "thresh": 0.5, "caption_prefix": "sks", "use_rating_tags": True},
            "pictures": pictures,
        }
    )
    assert composed["texts"] == ["sks, general, long hair"] * 3 and composed["limits"]["character"] == 0.5
    with pytest.raises(InputError, match="thresh"):
        tags.compose({"kind": "tag", "values": {"thresh": 7}, "pictures": pictures})


def test_a_folder_is_tagged_and_the_run_undone(tags, folder, tagger) -> None:
    (folder / "0.txt").write_text("by hand")
    (folder / "1.png").write_bytes(b"")
    values = {"train_data_dir": str(folder), "repo_id": str(tagger)}
    tags.start({"kind": "tag", "values": values})
    job = done(tags)
    assert job["state"] == "finished" and job["result"]["written"] == 1 and job["result"]["had_text"] == 1
    assert job["result"]["failed"] == [["1.png", "is empty (0 bytes)"]] and (folder / "2.txt").exists()
    opened = tags.open_page({})
    assert opened["values"]["tag"]["train_data_dir"] == str(folder) and opened["folders"] == [str(folder)]
    assert opened["job"]["result"]["edit"] == 1
    assert tags.undo({})["message"] == "Undone: 1 files are as they were."
    assert (folder / "0.txt").read_text() == "by hand" and not (folder / "2.txt").exists()
    with pytest.raises(InputError, match="undone already"):
        tags.undo({})


def test_what_is_missing_is_named_before_or_by_the_job(tags, captions, folder) -> None:
    with pytest.raises(InputError, match="folder") as caught:
        tags.start({"kind": "tag", "values": {}})
    assert caught.value.problems[0].key == "train_data_dir"
    with pytest.raises(InputError, match="batch_size"):
        tags.start({"kind": "tag", "values": {"train_data_dir": str(folder), "batch_size": 0}})
    assert tags.about_model({"kind": "tag", "model": "bundled"})["there"]
    about = tags.about_model({"kind": "tag", "model": "SmilingWolf/wd-vit-tagger-v3"})
    assert about == {"there": False, "size": "about 380 MB"}
    tags.start(
        {"kind": "tag", "values": {"train_data_dir": str(folder), "repo_id": "SmilingWolf/wd-vit-tagger-v3"}}
    )
    job = done(tags)
    assert (
        job["state"] == "failed"
        and "is missing" in job["errors"][0]["what"]
        and job["errors"][0]["key"] == "repo_id"
    )
    with pytest.raises(InputError, match="nothing that can be taken back"):
        tags.undo({})


def test_the_card_is_left_to_a_training(tags, folder, tagger, monkeypatch) -> None:
    monkeypatch.setattr("ui.tabs.annotating.process.running_training", lambda root: object())
    tags.start({"kind": "tag", "values": {"train_data_dir": str(folder), "repo_id": str(tagger)}})
    job = done(tags)
    assert job["result"]["written"] == 3
    records = read_events(next((tags.context.runs).glob("*/events.jsonl")))[0]
    assert any("left to it" in record.get("text", "") for record in records)


def test_texts_are_cleaned_from_the_page(captions, folder) -> None:
    (folder / "0.txt").write_text("there is a dog")
    rules = captions.usual_rules({})["rules"]
    given = {"kind": "clean", "values": {"train_data_dir": str(folder)}, "rules": rules}
    captions.start({**given, "try": True})
    assert done(captions)["result"]["changes"] == [["0.txt", "", "there is a dog", "a dog"]]
    assert (folder / "0.txt").read_text() == "there is a dog"
    captions.start(given)
    assert done(captions)["result"]["written"] == 1 and (folder / "0.txt").read_text() == "a dog"
    assert "1 files" in captions.undo({})["message"] and (folder / "0.txt").read_text() == "there is a dog"
    with pytest.raises(InputError, match="expression"):
        captions.start({**given, "rules": [{"on": "tags", "kind": "drop", "pattern": "("}]})
    captions.save({"kind": "clean", "values": {"recursive": True}, "rules": rules[:1]})
    opened = captions.open_page({})
    assert (
        opened["rules"] == rules[:1]
        and opened["values"]["clean"]["recursive"] is True
        and opened["kind"] == "clean"
    )
