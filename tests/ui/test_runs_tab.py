"""The Runs page: what it lists, the card of a run, and what its buttons do."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from backend.errors import InputError
from backend.jobs import process, queue
from backend.jobs.events import EventLog
from backend.jobs.runs import Run, create_run, list_runs
from tests.weights.weights_kit import make_lora
from ui.context import Context
from ui.drafts import Drafts
from ui.i18n import speaking
from ui.tabs.runs import RunsPage

CONFIG = (
    '[model]\npretrained_model_name_or_path = "/m/base.safetensors"\n[optimizer]\nlearning_rate = 0.002\n'
)


@pytest.fixture
def page(tmp_path: Path) -> RunsPage:
    (tmp_path / "runs").mkdir()
    return RunsPage(Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts")))


@pytest.fixture
def run(page: RunsPage) -> Run:
    run = create_run(page.context.runs, "my cat", CONFIG)
    result = make_lora(run.path / "checkpoints" / "cat.safetensors")
    log = EventLog(run.events)
    log.emit("plan", title="LoRA, rank 4", images=12, notes=["x"], buckets=[{"size": [64, 64], "count": 12}])
    log.emit("note", text="2 pictures left out: a.png is empty (0 bytes); b.png is cut off.")
    log.emit("warning", text="no room")
    for step in (0, 5, 10):
        Image.new("RGB", (64, 64)).save(run.path / "samples" / f"{step}.png")
        log.emit("sample", path=f"samples/{step}.png", step=step, index=0, prompt="a cat", seed=1)
    for file in (str(result), "/gone/old.safetensors"):
        log.emit("saved", step=10, epoch=1, kind="result", path=file)
    log.emit(
        "result",
        path=str(result),
        facts={"steps": 10, "average_loss": 0.123456789, "usage": "<lora:cat:1> sks"},
    )
    log.close()
    return run


def test_the_list_says_what_each_run_is(page: RunsPage, run: Run) -> None:
    page.remark({"run": run.id, "tags": ["keep", " "], "note": "good eyes"})
    (line,) = page.list_all({})["runs"]
    assert line["name"] == "my cat" and line["state"] == "created"
    assert (line["tags"], line["note"], line["base"]) == (["keep"], "good eyes", "base.safetensors")
    page.remark({"run": run.id, "tags": [], "note": ""})
    assert page.list_all({})["runs"][0]["tags"] == []


def test_the_list_is_in_the_language_of_each_reader(page: RunsPage, run: Run) -> None:
    said: list[str] = []
    for name in ("ja", "zh", "ja"):
        with speaking(name):
            said.append(page.list_all({})["runs"][0]["detail"])
    assert said[0] == said[2] != said[1]


def test_the_card_shows_result_files_and_both_ends(page: RunsPage, run: Run) -> None:
    card = page.card({"run": run.id})["card"]
    facts = dict(card["facts"])
    assert facts["title"] == "LoRA, rank 4" and facts["steps"] == "10" and facts["average_loss"] == "0.123457"
    assert facts["buckets"] == "1" and "notes" not in facts
    assert card["usage"] == "<lora:cat:1> sks"
    assert [(file["name"], file["there"]) for file in card["files"]] == [
        ("cat.safetensors", True),
        ("old.safetensors", False),
    ]
    assert [message["kind"] for message in card["messages"]] == ["warning", "note"]
    assert card["messages"][1]["text"].startswith("2 pictures left out: a.png is empty")
    (row,) = card["pictures"]
    assert [end["step"] for end in row["ends"]] == [0, 10]
    assert row["ends"][0]["url"].endswith("/samples/0.png") and row["ends"][0]["small"].endswith(".webp")


def test_a_run_goes_on_in_the_form_from_one_of_its_files(page: RunsPage, run: Run) -> None:
    file = str(run.path / "checkpoints" / "cat.safetensors")
    page.fork({"run": run.id, "file": file})
    draft = page.context.drafts.load("train") or {}
    assert draft["learning_rate"] == 0.002
    assert draft["network_weights"] == file and draft["output_name"] == "cat-on"
    page.fork({"run": run.id})
    assert "network_weights" not in (page.context.drafts.load("train") or {})


def test_the_same_again_starts_or_waits(page: RunsPage, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(process, "start", lambda run, **_: started.append(run.id))
    reply = page.again({"run": run.id})
    assert started == [reply["run"]] and not reply["waiting"] and reply["run"] != run.id
    assert len(list_runs(page.context.runs)) == 2
    queue.hold(page.context.runs, "held")
    reply = page.again({"run": run.id})
    assert reply["waiting"] and started != [reply["run"]]
    new = next(one for one in list_runs(page.context.runs) if one.id == reply["run"])
    assert new.config.read_text(encoding="utf-8") == CONFIG


def test_the_queue_is_changed_by_its_buttons(page: RunsPage, run: Run) -> None:
    other = create_run(page.context.runs, "other", CONFIG)
    for one in (run, other):
        page.wait({"act": "add", "run": one.id})
    assert page.wait({"act": "move", "run": other.id, "place": 0})["queue"]["waiting"] == [other.id, run.id]
    assert page.wait({"act": "go_on", "value": False})["queue"]["go_on"] is False
    assert page.wait({"act": "hold"})["queue"]["held"]
    assert page.wait({"act": "release"})["queue"]["held"] == ""
    assert page.wait({"act": "remove", "run": run.id})["queue"]["waiting"] == [other.id]
    with pytest.raises(InputError, match="unknown change"):
        page.wait({"act": "shake"})


def test_deleting_is_undone(page: RunsPage, run: Run) -> None:
    page.throw_away({"run": run.id})
    now = page.list_all({})
    assert now["runs"] == [] and [item["id"] for item in now["trash"]] == [run.id]
    page.bring_back({"run": run.id})
    assert [line["id"] for line in page.list_all({})["runs"]] == [run.id]
    page.throw_away({"run": run.id})
    assert page.empty_trash({})["freed"] > 0
    assert page.list_all({})["trash"] == []


def test_two_runs_are_compared(page: RunsPage, run: Run) -> None:
    other = create_run(page.context.runs, "other", CONFIG.replace("0.002", "0.001"))
    found = page.compare({"first": run.id, "second": other.id})
    assert found["settings"] == [["learning_rate", "0.002", "0.001"]]
    assert found["names"] == ["my cat", "other"]
    assert found["labels"] == {"learning_rate": "Learning rate"}
    (pair,) = found["pictures"]
    assert [len(shots) for shots in pair["runs"]] == [3, 0]


def test_no_run_outside_is_touched(page: RunsPage, run: Run) -> None:
    for wrong in ("../runs", "", "none", None):
        for call in (page.card, page.throw_away, page.again, page.resume, page.remark):
            with pytest.raises(InputError):
                call({"run": wrong})
