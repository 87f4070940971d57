"""Grids on the page: drawn, gone on with, voted on."""

from __future__ import annotations

import base64
import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from backend.errors import InputError
from backend.jobs.events import EventLog
from backend.jobs.runs import create_run
from tests.ui.generate.kit import drawn_grid, finished, values, with_worker
from tests.weights.weights_kit import make_lora
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


def run_of(context, name: str, *files: Path):
    """A run that made copies of files, in this order."""
    config = f"""
[model]
pretrained_model_name_or_path = "{context.home}/base.safetensors"
clip_skip = 2
[dataset]
resolution = "96,64"
[sampling]
sample_prompt_text = "a toy --w 64"
"""
    run = create_run(context.runs, name, config)
    for number, file in enumerate(files, 1):
        target = run.path / "checkpoints" / file.name
        shutil.copyfile(file, target)
        os.utime(target, (number, number))
    EventLog(run.events).emit("result", path="gone", facts={"usage": f"<lora:{name} of mine:1> sks toy"})
    return run


def test_which_epoch_is_best_takes_the_runs_own_files_in_order(context, grid, tmp_path):
    lora = make_lora(tmp_path / "toy-000010.safetensors")
    others = [tmp_path / "toy-000002.safetensors", tmp_path / "toy.safetensors"]
    for other in others:
        shutil.copyfile(lora, other)
    run = run_of(context, "toy", lora, *others)
    assert grid.list_grids({})["runs"] == [{"id": run.id, "name": "toy", "files": 3}]
    plan = grid.plan_run({"run": run.id, "prompt": ""})
    names = [Path(line).stem for line in plan["axes"][0]["text"].splitlines()]
    assert names == ["toy-000002", "toy-000010", "toy"]
    assert [axis["key"] for axis in plan["axes"]] == ["file", "strength", "seed"]
    form = plan["values"]
    assert (form["prompt"], form["model"]) == ("sks toy", str(context.home / "base.safetensors"))
    assert (form["width"], form["height"], form["clip_skip"], form["loras"]) == (96, 64, 2, [])
    before = grid.plan_run({"run": run.id, "prompt": "a house"})["values"]["prompt"]
    assert before == "sks toy, a house", "the words that were learnt are in what is drawn"
    started = grid.start_grid({"values": values(context, **form), "axes": plan["axes"]})
    assert started["total"] == 3 * 3 * 2 and started["ratio"] == 1.5
    with pytest.raises(InputError, match="no networks"):
        grid.plan_run({"run": "none"})


def test_only_files_that_can_be_compared_are_offered(context, grid, tmp_path):
    vae = tmp_path / "vae.safetensors"
    save_file(
        {"decoder.conv_in.weight": torch.ones(8, 4, 3, 3), "encoder.conv_in.weight": torch.ones(8, 3, 3, 3)},
        vae,
    )
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"x")
    for file in (vae, damaged):
        run = run_of(context, file.stem, file)
        with pytest.raises(InputError, match="no networks"):
            grid.plan_run({"run": run.id})
    assert grid.list_grids({})["runs"] == []


def test_words_of_a_run_are_each_read_from_their_own_file(context, grid, tmp_path):
    files = [tmp_path / f"mycat{time}.safetensors" for time in ("-000001", "-000002", "")]
    for file in files:
        save_file({"emb_params": torch.ones(2, 768)}, file)
    run = run_of(context, "word", *files)
    plan = grid.plan_run({"run": run.id, "prompt": "a house"})
    assert [axis["key"] for axis in plan["axes"]] == ["file", "seed"]
    assert plan["values"]["prompt"] == "mycat, a house" and not plan["values"]["embeddings"]
    id = grid.start_grid({"values": values(context, **plan["values"]), "axes": plan["axes"]})["id"]
    drawn = grid.folder({"grid": id}).grid
    cells = [drawn.cell((column, 0))[1] for column in range(3)]
    assert [cell.prompt for cell in cells] == [f"{file.stem}, a house" for file in files]
    assert {cell.embeddings for cell in cells} == {str(run.path / "checkpoints")}


def test_guides_of_a_run_take_turns_over_a_picture_that_it_was_taught(context, grid, tmp_path):
    weights = {"lllite_unet_a.conditioning1.0.weight": torch.ones(4, 3, 4, 4)}
    weights |= {
        "lllite_unet_a.down.0.weight": torch.ones(4, 8),
        "lllite_unet_a.up.0.weight": torch.ones(8, 8),
    }
    files = [tmp_path / name for name in ("edges-000001.safetensors", "edges.safetensors")]
    for file in files:
        save_file(weights, file)
    (tmp_path / "lines").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "lines" / "one.png")
    run = run_of(context, "edges", *files)
    run.config.write_text(run.config.read_text() + f"\nconditioning_data_dir = '{tmp_path / 'lines'}'\n")
    plan = grid.plan_run({"run": run.id})
    assert [axis["key"] for axis in plan["axes"]] == ["file", "strength", "seed"]
    id = grid.start_grid({"values": values(context, **plan["values"]), "axes": plan["axes"]})["id"]
    cell = grid.folder({"grid": id}).grid.cell((0, 1, 0))[1]
    (guide,) = cell.guides
    assert (Path(guide.path).name, guide.strength) == (files[0].name, 0.8) and Path(guide.image).is_file()


def test_whole_models_of_a_run_have_no_strength(context, grid, tiny_sd15):
    run = run_of(context, "whole", tiny_sd15)
    plan = grid.plan_run({"run": run.id})
    assert [axis["key"] for axis in plan["axes"]] == ["file", "seed"]
    started = grid.start_grid({"values": values(context, **plan["values"]), "axes": plan["axes"]})
    assert started["total"] == 2


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
