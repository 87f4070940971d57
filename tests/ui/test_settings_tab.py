"""The System page: health, folders, caches."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.errors import InputError
from backend.system.doctor import Finding
from ui.caches import caches, clear
from ui.context import Context
from ui.drafts import Drafts
from ui.plan import DoctorReport
from ui.tabs import settings
from ui.tabs.settings import SystemPage


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemPage:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    for name in ("latents/ab/1.safetensors", "latents/cd/2.safetensors", "files.tsv", "own/keep.txt"):
        file = tmp_path / ".cache" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100)
    context = Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))
    findings = [Finding("bad", "GPU", "no driver", "install one")]
    return SystemPage(context, DoctorReport(lambda: findings))


def test_the_doctors_report_comes_when_it_is_made(page: SystemPage):
    reply: dict[str, Any] = {"state": ""}
    while reply["state"] != "done":
        reply = page.health({})
        time.sleep(0.01)
    assert [(one["level"], one["name"], one["fix"]) for one in reply["findings"]] == [
        ("bad", "GPU", "install one")
    ]
    assert "no driver" in reply["text"]


def test_folders_and_caches_have_sizes(page: SystemPage, tmp_path: Path):
    reply = page.places({})
    assert [(one["kind"], one["bytes"], one["files"]) for one in reply["caches"]] == [
        ("latents", 200, 2),
        ("files.tsv", 100, 1),
    ]
    assert str(tmp_path / "runs") in [one["path"] for one in reply["folders"]]
    assert all(one["free"] > 0 for one in reply["folders"])


def test_a_cache_is_cleared_and_nothing_else(page: SystemPage, tmp_path: Path):
    assert page.clear_cache({"kind": "latents"}) == {"freed": 200}
    assert [cache.kind for cache in caches(tmp_path / ".cache")] == ["files.tsv"]
    for kind in ("own", "../runs", ""):
        with pytest.raises(InputError, match="no cache"):
            clear(tmp_path / ".cache", kind)
    assert (tmp_path / ".cache" / "own" / "keep.txt").exists()


def test_caches_stay_while_a_training_may_read_them(page: SystemPage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings, "running_training", lambda _: SimpleNamespace(name="my cat"))
    with pytest.raises(InputError, match="my cat"):
        page.clear_cache({"kind": "latents"})


def test_programs_that_hold_a_model_are_ended(page: SystemPage):
    assert "No model" in page.unload({})["message"]
    ended: list[str] = []
    page.context.helpers["generate"] = lambda: bool(ended.append("generate") or True)
    assert "let go" in page.unload({})["message"] and ended == ["generate"]
