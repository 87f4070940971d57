"""Grids on the page: drawn, gone on with, voted on."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import pytest
from PIL import Image

from backend.errors import InputError
from backend.jobs.runs import create_run
from tests.ui.generate.kit import drawn_grid, finished, values, with_worker
from ui.tabs.generate.grids import GridCalls, VoteCalls

AXES = [{"key": "seed", "text": "1, 2"}, {"key": "scale", "text": "4, 7, 9"}, {"key": "steps", "text": " "}]


@pytest.fixture
def grid(desk) -> GridCalls:
    with_worker(desk.studio, drawn_grid)
    return GridCalls(desk)


def test_a_grid_is_drawn_shown_and_gone_on_with(context, desk, grid):
    assert grid.count_cells({"axes": AXES}) == {"cells": 6}
    id = grid.start_grid({"values": values(context, count=4), "axes": AXES, "name": "mine"})["id"]
    finished(desk.studio)
    shown = grid.show_grid({"grid": id})
    assert (shown["done"], shown["total"], shown["wanted"], shown["name"]) == (6, 6, False, "mine")
    assert shown["axes"][1]["labels"] == ["CFG 4", "CFG 7", "CFG 9"]
    assert shown["cells"]["1-2"]["small"].endswith(".webp")
    Path(shown["cells"]["1-2"]["path"]).unlink()
    assert grid.show_grid({"grid": id})["done"] == 5
    grid.continue_grid({"grid": id})
    view = finished(desk.studio)
    assert (view.done, view.total, len(view.shots)) == (6, 6, 1)
    assert [found["id"] for found in grid.list_grids({})["grids"]] == [id]


def test_grids_that_cannot_be_drawn_are_refused(context, grid):
    with pytest.raises(InputError, match="No axis"):
        grid.start_grid({"values": values(context), "axes": [{"key": "seed", "text": ""}]})
    with pytest.raises(InputError, match="gone"):
        grid.start_grid({"values": values(context), "axes": [{"key": "file", "text": "/gone"}]})
    for id in ("", "..", "../..", "no such", "/etc"):
        with pytest.raises(InputError, match="no"):
            grid.show_grid({"grid": id})


def test_which_epoch_is_best_takes_the_runs_own_files_in_order(context, grid):
    config = f'pretrained_model_name_or_path = "{context.home}/base.safetensors"\nsample_prompt_text = "a toy --w 64"\n'
    run = create_run(context.runs, "toy", config)
    for name in ("toy-000010", "toy-000002", "toy"):
        (run.path / "checkpoints" / f"{name}.safetensors").write_bytes(b"x")
        time.sleep(0.02)
    offered = grid.list_grids({})["runs"]
    assert offered == [{"id": run.id, "name": "toy", "files": 3}]
    plan = grid.plan_run({"run": run.id})
    names = [Path(line).stem for line in plan["axes"][0]["text"].splitlines()]
    assert names == ["toy-000002", "toy-000010", "toy"]
    assert (plan["prompt"], plan["model"]) == ("a toy", str(context.home / "base.safetensors"))
    assert [axis["key"] for axis in plan["axes"]] == ["file", "strength", "seed"]
    with pytest.raises(InputError, match="no network files"):
        grid.plan_run({"run": "none"})


def test_a_vote_tells_nothing_until_it_is_over(context, desk, grid):
    id = grid.start_grid({"values": values(context), "axes": AXES})["id"]
    finished(desk.studio)
    vote = VoteCalls(grid)
    asked = vote.next_pair({"grid": id})
    assert set(asked) == {"pair", "pictures", "prompt", "votes"} and asked["prompt"] == "a cat"
    assert all(picture.startswith("data:image/png;base64,") for picture in asked["pictures"])
    again = vote.vote({"grid": id, "pair": asked["pair"], "choice": "first"})
    assert again["votes"] == 1
    assert vote.vote({"grid": id, "pair": asked["pair"], "choice": "first"})["votes"] == 1, "each pair once"
    skipped = vote.vote({"grid": id, "pair": again["pair"], "choice": "skip"})
    assert skipped["votes"] == 1
    for _ in range(40):  # the darker one is always better: it has the smaller scale
        reds = [
            Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))).getpixel((0, 0))[0]
            for p in skipped["pictures"]
        ]
        skipped = vote.vote(
            {"grid": id, "pair": skipped["pair"], "choice": "first" if reds[0] < reds[1] else "second"}
        )
    result = grid.show_grid({"grid": id})["votes"]
    assert result["votes"] == 41 and result["rows"][0]["label"] == "CFG 4" and result["clear"]
    assert result["rows"][0]["low"] < result["rows"][0]["chance"] < result["rows"][0]["high"]
