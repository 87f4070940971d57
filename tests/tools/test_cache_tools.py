"""Caching ahead of training: what is encoded once is found by the training."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backend.jobs import process
from backend.jobs.control import send
from backend.jobs.runs import create_run
from backend.jobs.state import state
from backend.settings import Settings, to_toml
from tests.data_edit.conftest import facts_of
from tests.e2e.conftest import World, events

pytestmark = pytest.mark.e2e


def options(world: World, **more: Any) -> list[str]:
    """The options of a training in which the text encoder stays as it is."""
    return world.options(
        cache_latents=None, network_train_unet_only=True, enable_bucket=True, min_bucket_reso=32, **more
    )


def first_progress(run: Path, phase: str) -> tuple[int, int]:
    """(found in the cache, wanted) of a training's caching."""
    record = next(record for record in events(run, "progress") if record["phase"] == phase)
    return record["done"], record["total"]


def test_a_training_finds_what_the_tools_encoded(world: World) -> None:
    before = facts_of(world.pictures)
    latents = world.python("tools/cache_latents.py", *options(world, flip_aug=True), "--skip_existing")
    assert latents.returncode == 0, latents.stdout + latents.stderr
    assert "caching latents: 12 of 12 pictures encoded, 0 were there; " in latents.stdout
    assert "pictures a second" in latents.stdout and "done: 12 in the cache" in latents.stdout
    again = world.python("tools/cache_latents.py", *options(world, flip_aug=True))
    assert "0 of 12 pictures encoded, 12 were there" in again.stdout
    texts = world.python("tools/cache_text_encoder_outputs.py", *options(world, shuffle_caption=True))
    assert texts.returncode == 0, texts.stdout + texts.stderr
    assert " captions encoded, 0 were there" in texts.stdout

    trained = world.train(
        cache_latents=None, cache_latents_to_disk=True, cache_text_encoder_outputs_to_disk=True, flip_aug=True,
        network_train_unet_only=True, enable_bucket=True, min_bucket_reso=32, shuffle_caption=True,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert first_progress(world.newest_run(), "caching latents") == (12, 12)
    found, wanted = first_progress(world.newest_run(), "caching text")
    assert found == wanted > 6
    assert facts_of(world.pictures) == before


def test_through_accelerate_launch_one_process_does_it(world: World) -> None:
    line = ["-m", "accelerate.commands.launch", "--num_cpu_threads_per_process", "1", "--cpu"]
    done = world.python(*line, "tools/cache_latents.py", *options(world))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 pictures encoded" in done.stdout
    other = World(world.home, world.model, world.pictures)
    second = other.python("-c", "import os, runpy, sys; os.environ['RANK'] = '1'; sys.argv = ['x']; "
                          "runpy.run_path('tools/cache_latents.py', run_name='__main__')")  # fmt: skip
    assert second.returncode == 0 and "encoded" not in second.stdout


def test_what_is_wrong_is_said_before_anything_loads(world: World, tmp_path: Path) -> None:
    done = world.python("tools/cache_latents.py", *options(world, resolution="7"))
    assert done.returncode == 2 and "resolution" in done.stderr
    missing = world.python(
        "tools/cache_latents.py", *options(world, pretrained_model_name_or_path=tmp_path / "no.safetensors")
    )
    assert missing.returncode == 2 and "not found" in missing.stderr
    flux = world.python("tools/cache_latents.py", *options(world), "--flux")
    assert flux.returncode == 2 and "Flux models are not supported" in flux.stderr


def tool_run(world: World, monkeypatch: pytest.MonkeyPatch, **values: Any) -> Any:
    for key, value in world.environment.items():
        monkeypatch.setenv(key, value)
    flat = {
        "pretrained_model_name_or_path": str(world.model), "train_data_dir": str(world.pictures),
        "resolution": "64", "enable_bucket": True, "min_bucket_reso": 32, "seed": 1, **values,
    }  # fmt: skip
    run = create_run(world.home / "runs", "prepare", to_toml(Settings.from_flat(flat)), kind="tool")
    process.start(run, [sys.executable, "-m", "backend.train.prepare", str(run.path)])
    return run


def wait(run: Any, seconds: float = 180) -> str:
    end = time.monotonic() + seconds
    while state(run).active:
        assert time.monotonic() < end, run.log.read_text(encoding="utf-8")
        time.sleep(0.1)
    return events(run.path, "state")[-1]["state"]


def test_the_page_starts_it_as_a_job_and_follows_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tool_run(
        world, monkeypatch, cache_latents=True, cache_text_encoder_outputs=True, network_train_unet_only=True
    )
    assert wait(run) == "finished", run.log.read_text(encoding="utf-8")
    assert {record["phase"] for record in events(run.path, "progress")} == {"caching latents", "caching text"}
    (result,) = events(run.path, "result")
    assert (
        result["facts"]["caching latents"]["computed"] == 6 and result["facts"]["caching text"]["total"] == 6
    )
    assert list((world.home / ".cache").rglob("*")), "kept on disk though the settings ask for memory only"


def test_a_broken_picture_is_named(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.pictures, copy)
    broken = next(copy.rglob("im02.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    run = tool_run(world, monkeypatch, train_data_dir=str(copy))
    assert wait(run) == "failed"
    (error,) = events(run.path, "error")
    assert "im02.png" in str(error["problems"])


def test_stop_keeps_what_was_encoded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tool_run(world, monkeypatch, train_data_dir=str(world.pictures), vae_batch_size=1)
    send(run, "stop")
    assert wait(run) == "stopped"


def test_buckets_into_metadata_and_latents_into_the_cache(world: World, tmp_path: Path) -> None:
    folder = next(world.pictures.iterdir())
    before = facts_of(world.pictures)
    pictures = sorted(folder.glob("*.png"))
    metadata = {str(path): {"caption": f"shape {i}", "tags": "flat"} for i, path in enumerate(pictures[:-1])}
    metadata["gone"] = {"caption": "not there"}
    source, target = tmp_path / "meta.json", tmp_path / "lat.json"
    source.write_text(json.dumps(metadata), encoding="utf-8")
    line = ["tools/prepare_buckets_latents.py", "--full_path", folder, source, target, world.model,
            "--max_resolution", "64,64", "--min_bucket_reso", "32", "--bucket_reso_steps", "16", "--batch_size", "4",
            "--skip_existing"]  # fmt: skip
    done = world.python(*line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 pictures encoded, 0 were there" in done.stdout
    assert (
        "skip_existing needs nothing here" in done.stdout and "1 entry without a picture: gone" in done.stdout
    )
    written = json.loads(target.read_text(encoding="utf-8"))
    assert {
        key: value for key, value in written[str(pictures[0])].items() if key != "train_resolution"
    } == metadata[str(pictures[0])]
    assert written[str(pictures[0])]["train_resolution"] == [64, 64]
    assert written[str(pictures[1])]["train_resolution"] == [80, 48]
    assert written[str(pictures[-1])]["train_resolution"] == [48, 80]
    assert (
        "train_resolution" not in written["gone"]
        and json.loads(source.read_text(encoding="utf-8")) == metadata
    )
    # Its own output again: kept under another name, and nothing is encoded twice.
    again = world.python(*line)
    assert again.returncode == 0 and "0 of 6 pictures encoded, 6 were there" in again.stdout
    assert len(list(tmp_path.glob("lat-before-*.json"))) == 1
    trained = world.train(
        train_data_dir=folder, in_json=target, skip_broken_images=True, cache_latents_to_disk=True, enable_bucket=True, min_bucket_reso=32,
        bucket_reso_steps=16,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert first_progress(world.newest_run(), "caching latents") == (6, 6)
    assert facts_of(world.pictures) == before


def test_metadata_faults_name_file_and_line(world: World, tmp_path: Path) -> None:
    source = tmp_path / "meta.json"
    source.write_text('{\n"a.png": {"caption": "x"},\n"b.png" {}\n}', encoding="utf-8")
    line = [
        "tools/prepare_buckets_latents.py",
        next(world.pictures.iterdir()),
        source,
        tmp_path / "out.json",
        world.model,
    ]
    done = world.python(*line)
    assert done.returncode == 2 and "meta.json line 3" in done.stderr
    assert not (tmp_path / "out.json").exists()
