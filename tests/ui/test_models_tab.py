"""The Models page: what it asks, the jobs it starts, and what it shows of them."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from safetensors.torch import save_file

from backend.errors import InputError
from backend.weights.jobs import KINDS, read_job
from tests.weights.weights_kit import make_lora, tensors_of
from ui.context import Context
from ui.drafts import Drafts
from ui.i18n import catalogue, speaking
from ui.tabs.merge import ModelsPage, command_line, job_of
from ui.tabs.merge_forms import BY_KIND, FORMS

TOLD = json.loads((Path(__file__).parents[1] / "golden" / "tiny_lora_metadata.json").read_text())


@pytest.fixture
def page(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    return ModelsPage(Context(tmp_path, runs, Drafts(tmp_path / "drafts")))


def test_forms_ask_for_what_jobs_take():
    assert [form.kind for form in FORMS] and BY_KIND.keys() == KINDS.keys()
    texts = catalogue()
    for form in FORMS:
        known = {field.name: field for field in fields(KINDS[form.kind][0])}
        asked = {field.name for field in form.fields}
        assert asked <= known.keys()
        needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
        assert needed - {"ratios"} <= {field.name for field in form.fields if field.required}
        assert f"models.{form.kind}" in texts and f"models.about.{form.kind}" in texts
        for field in form.fields:
            assert f"models.f.{field.name}" in texts and f"models.h.{field.name}" in texts
            assert all(f"models.c.{choice or 'none'}" in texts for choice in field.choices)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind)
def test_every_form_gives_a_job_and_a_command_that_its_tool_knows(form, root):
    values = {field.name: "/x/a b.safetensors" for field in form.fields if field.kind in ("file", "output")}
    values |= {field.name: True for field in form.fields if field.kind == "flag"}
    values["models"] = [
        {"path": "a.safetensors", "ratio": 0.5},
        {"path": " 'b.safetensors' ", "ratio": 1},
        {"path": ""},
    ]
    values |= {"set": "a=b", "remove": "c"} if form.kind == "edit_metadata" else {}
    job = job_of(form, values)
    kind, _ = read_job(job)
    assert kind == form.kind
    if any(field.kind == "parts" for field in form.fields):
        assert job["models"] == ["a.safetensors", "b.safetensors"] and job["ratios"] == [0.5, 1.0]
    line = shlex.split(command_line(form, job))
    source = (root / "tools" / form.tool).read_text() + (
        root / "backend" / "weights" / "command.py"
    ).read_text()
    assert (root / line[1]).exists()
    source = source.replace('f"--{name}"', " ".join(f'"--{name}"' for name in ("fp16", "bf16", "float")))
    assert all(f'"{word}"' in source for word in line if word.startswith("--"))


def done(page):
    """Wait for the job that was started."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = page.look({})["job"]
        if not job["active"]:
            return job
        time.sleep(0.2)
    raise AssertionError("the job does not end")


def test_a_file_is_looked_into_and_trained_again(page, tmp_path):
    source = make_lora(tmp_path / "a.safetensors", metadata=TOLD)
    page.start({"kind": "inspect", "values": {"model": f' "{source}" '}})
    with pytest.raises(InputError, match="at work"):
        page.start({"kind": "inspect", "values": {"model": str(source)}})
    job = done(page)
    assert job["state"] == "finished" and job["result"]["title"] == "LoRA for SD 1.5"
    assert len(job["result"]["layers"]) == 4
    with speaking("ja"):
        told = page.look({})["job"]["result"]
    assert told["title"] == "SD 1.5 用の LoRA" and not any(note.isascii() for note in told["notes"])
    page.train_again({})
    draft = page.context.drafts.load("train")
    assert draft["network_dim"] == 4 and draft["learning_rate"] == 0.001
    opened = page.open_page({})
    assert opened["kind"] == "inspect" and str(source) in opened["files"] and opened["job"]["result"]


def test_a_job_that_fails_shows_why(page, tmp_path):
    source, out = make_lora(tmp_path / "a.safetensors"), tmp_path / "r.safetensors"
    tensors = tensors_of(source)
    save_file(
        {**tensors, "something.else": next(iter(tensors.values())).clone()}, tmp_path / "odd.safetensors"
    )
    page.start(
        {"kind": "resize", "values": {"model": str(tmp_path / "odd.safetensors"), "save_to": str(out)}}
    )
    job = done(page)
    assert job["state"] == "failed" and "not known here" in job["errors"][0]["what"] and not out.exists()


def test_what_is_missing_or_no_number_is_named_before(page):
    with pytest.raises(InputError) as caught:
        page.start({"kind": "extract", "values": {}})
    assert [problem.key for problem in caught.value.problems] == ["model_org", "model_tuned", "save_to"]
    for values in ({"new_rank": "many"}, {"dynamic_param": "x"}):
        with pytest.raises(InputError, match="no number"):
            page.command({"kind": "resize", "values": values})
    with pytest.raises(InputError, match="key=value"):
        page.command({"kind": "edit_metadata", "values": {"set": "nonsense"}})
    assert page.look({})["job"] is None
