"""The plan of a run, how long it would take, and what is asked before a run goes on."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.data.plan import build_plan, picture_ids
from backend.errors import InputError
from backend.jobs.control import ControlReader
from backend.jobs.runs import Run, create_run
from backend.settings import Settings, read_toml, to_toml
from backend.system.doctor import Finding
from ui.context import Context
from ui.drafts import Drafts
from ui.found import Finder
from ui.pace import pace
from ui.plan import DoctorReport, Planner
from ui.plan_calls import PlanCalls
from ui.resuming import accept_other_pictures, other_pictures
from ui.run_calls import RunCalls


def asked_until_done(planner: Planner, key: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = planner.ask(key, "seed = 1", {"HF_TOKEN": "secret"})
        if found["state"] == "done":
            return found["card"]
        time.sleep(0.05)
    raise AssertionError("no plan")


def script(text: str) -> Any:
    return lambda config: [sys.executable, "-c", text, str(config)]


def test_a_plan_is_made_by_another_process_once(tmp_path: Path):
    trace = tmp_path / "trace"
    planner = Planner(script(
        "import sys, os, json, pathlib\n"
        f"pathlib.Path({str(trace)!r}).open('a').write('x')\n"
        "print('a library says something')\n"
        "print(json.dumps({'toml': open(sys.argv[1]).read(), 'token': os.environ['HF_TOKEN']}))"
    ))  # fmt: skip
    assert asked_until_done(planner, "a") == {"toml": "seed = 1", "token": "secret"}
    assert asked_until_done(planner, "a")["token"] == "secret"
    assert trace.read_text() == "x"


def test_a_plan_that_fails_is_a_problem_with_its_details():
    card = asked_until_done(Planner(script("import sys; sys.exit('no such thing')")), "a")
    assert "no such thing" in card["problems"][0]["detail"]


def test_a_newer_question_ends_the_older():
    planner = Planner(script("import sys, time; time.sleep(60)"))
    assert planner.ask("old", "", {})["state"] == "working"
    old = planner._work  # type: ignore[reportPrivateUsage]
    assert old is not None
    planner.ask("new", "", {})
    assert old.process.poll() is not None
    planner.close()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "runs").mkdir()
    return Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))


def run_with_steps(context: Context, seconds: float, **values: Any) -> Run:
    run = create_run(context.runs, "earlier", to_toml(Settings.from_flat(values)))
    records = [{"t": i, "type": "step", "step": i, "total": 9, "seconds": seconds} for i in range(1, 8)]
    run.events.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return run


def test_the_pace_is_that_of_a_run_like_this(context: Context):
    values = {"pretrained_model_name_or_path": "/m.safetensors", "resolution": "512", "train_batch_size": 2}
    settings = Settings.from_flat(values)
    assert pace(context.runs, settings) is None
    run_with_steps(context, 9.0, **{**values, "pretrained_model_name_or_path": "/other.safetensors"})
    run_with_steps(context, 1.0, **{**values, "resolution": "256", "train_batch_size": 1})
    found = pace(context.runs, settings)
    assert found is not None and (found.seconds, found.exact) == (8.0, False)
    run_with_steps(context, 3.0, **values, learning_rate=1e-3)
    found = pace(context.runs, settings)
    assert found is not None and (found.seconds, found.exact) == (3.0, True)


def test_the_page_gets_problems_first_and_the_plan_when_it_is_done(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    card = {"steps": 10, "start": 0, "problems": []}
    planner = Planner(script(f"print({json.dumps(card)!r})"))
    findings = [Finding("ok", "Python", "fine"), Finding("note", "Disk", "little", "free some")]
    calls = PlanCalls(context, Finder(), planner, DoctorReport(lambda: findings))
    assert calls.plan({"values": {}})["state"] == "problems"
    found = calls.finder.look({})
    monkeypatch.setattr(
        calls.finder, "look", lambda *_, **__: type(found)(found.settings, None, None, (), ())
    )
    reply: dict[str, Any] = {"state": ""}
    while reply["state"] != "done":
        reply = calls.plan({"values": {}})
        time.sleep(0.02)
    assert reply["card"] == card and reply["time"] is None
    assert [one["name"] for one in reply["doctor"]] == ["Disk"]


def test_the_plan_does_not_wait_for_the_doctor(context: Context, monkeypatch: pytest.MonkeyPatch):
    planner = Planner(script(f"print({json.dumps({'steps': 10, 'start': 0})!r})"))
    looked = threading.Event()
    report = DoctorReport(lambda: [Finding("bad", "Disk", "full")] if looked.wait(60) else [])
    calls = PlanCalls(context, Finder(), planner, report)
    found = calls.finder.look({})
    monkeypatch.setattr(
        calls.finder, "look", lambda *_, **__: type(found)(found.settings, None, None, (), ())
    )
    while (reply := calls.plan({"values": {}}))["state"] != "done":
        time.sleep(0.02)
    assert reply["card"]["steps"] == 10 and reply["doctor"] is None
    looked.set()
    while (reply := calls.plan({"values": {}}))["doctor"] is None:
        time.sleep(0.02)
    assert [one["name"] for one in reply["doctor"]] == ["Disk"]


# ---- going on ------------------------------------------------------------------------------------


@pytest.fixture
def stopped(context: Context, tmp_path: Path) -> Run:
    folder = tmp_path / "pictures" / "1_cat"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
    settings = Settings.from_flat({"train_data_dir": str(folder.parent), "resolution": "64"})
    run = create_run(context.runs, "stopped", to_toml(settings))
    ids = picture_ids(build_plan(settings, verify=False))
    state = run.path / "state" / "recovery"
    state.mkdir()
    facts = {"position": {"step": 600}, "facts": {"pictures": ids}}
    (state / "state.json").write_text(json.dumps(facts), encoding="utf-8")
    return run


def test_changed_pictures_are_told_before_a_run_goes_on(stopped: Run, tmp_path: Path):
    assert other_pictures(stopped) is None
    folder = tmp_path / "pictures" / "1_cat"
    (folder / "a.png").unlink()
    for name in ("c", "d"):
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
    found = other_pictures(stopped)
    assert found is not None
    assert found.as_dict() == {
        "step": 600, "added": 2, "removed": 1, "added_names": ("c.png", "d.png"), "removed_names": ("a.png",),
    }  # fmt: skip
    accept_other_pictures(stopped)
    assert read_toml(stopped.config).saving.resume_changed_dataset
    assert other_pictures(stopped) is None


def test_a_running_training_is_told(context: Context, monkeypatch: pytest.MonkeyPatch):
    run = create_run(context.runs, "busy", to_toml(Settings.from_flat({"sample_prompt_text": "a cat"})))
    calls = RunCalls(context)
    with pytest.raises(InputError, match="No training"):
        calls.save_now({"run": run.id})
    busy = type("State", (), {"state": "running", "active": True})()
    monkeypatch.setattr("ui.run_calls.state", lambda run: busy)
    reader = ControlReader(run.control)
    for name in ("sample_now", "save_now", "pause"):
        assert getattr(calls, name)({"run": run.id})["message"]
    assert calls.sample_prompts({"run": run.id})["text"] == "a cat"
    calls.change_prompts({"run": run.id, "text": "a dog\na bird --w 64"})
    told = [(one["command"], one.get("text")) for one in reader.poll()]
    assert told == [("sample", None), ("save", None), ("pause", None), ("prompts", "a dog\na bird --w 64")]
    assert read_toml(run.config).sampling.sample_prompt_text == "a dog\na bird --w 64"
    calls.change_prompts({"run": run.id, "text": ""})
    with pytest.raises(InputError, match="no sample prompts"):
        calls.sample_now({"run": run.id})
