"""Optimizers with a memory of their own, in real trainings: samples, files, restore points, logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from backend.settings.optimizers import unavailable
from tests.e2e.conftest import World, events

pytestmark = pytest.mark.e2e


def train(world: World, **options: Any) -> Path:
    """Train to the end; the result's file."""
    done = world.train(max_train_steps=6, output_name=options.pop("output_name"), **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(
        Path(record["path"]) for record in events(world.newest_run(), "result") if "last_good" not in record
    )


def needs(name: str) -> Any:
    lacking = unavailable([name]).get(name, "")
    return pytest.mark.skipif(bool(lacking), reason=f"{name}: {lacking}")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@needs("Prodigy")
def test_prodigy_goes_on_to_the_byte_and_logs_the_step_size_it_found(world: World) -> None:
    options = {
        "optimizer_type": "prodigy", "learning_rate": 1, "lr_scheduler": "cosine", "lr_warmup_steps": 1,
        "optimizer_args": ["d0=1e-4", "d_coef=2", "use_bias_correction=True"],
        "save_every_n_steps": 3, "save_state": True,
    }  # fmt: skip
    straight = train(world, **options, output_name="straight", logging_dir=world.home / "logs")
    rates = [record["lr"] for record in events(world.newest_run(), "step")]
    assert list(rates[0]) == ["d*lr/te", "d*lr/unet", "te", "unet"]
    assert rates[0]["unet"] == 0 and rates[1]["unet"] == 1.0
    assert all(1e-4 <= 1.001 * lr["d*lr/unet"] / lr["unet"] < 1 for lr in rates[1:])
    with safe_open(straight, "pt") as file:
        said = file.metadata()["ss_optimizer"]
    assert said == "prodigyopt.prodigy.Prodigy(d0=0.0001,d_coef=2,use_bias_correction=True)"
    assert b"lr/d*lr/unet" in next((world.home / "logs").rglob("events.out.*")).read_bytes()
    state = world.home / "out" / "straight-step00000003-state"
    resumed = train(world, **options, output_name="resumed", resume=state)
    assert same(load_file(straight), load_file(resumed))


@needs("AdamWScheduleFree")
def test_a_schedule_free_result_is_the_mean_and_samples_and_files_change_nothing(world: World) -> None:
    options = {"optimizer_type": "AdamWScheduleFree", "save_state": True}
    watched = train(
        world, **options, output_name="watched", save_every_n_steps=3, sample_every_n_steps=2,
        sample_prompt_text="sks shape --w 64 --h 64 --s 2",
    )  # fmt: skip
    assert events(world.newest_run(), "sample")
    out = world.home / "out"
    resumed = train(world, **options, output_name="resumed", resume=out / "watched-step00000003-state")
    assert same(load_file(watched), load_file(resumed))
    trained = load_file(out / "watched-state" / "weights.safetensors")
    shown = load_file(watched)
    ups = [name for name in shown if "lora_up" in name]
    assert ups and not all(torch.equal(shown[name].float(), trained[name]) for name in ups)


def test_a_library_that_is_missing_ends_the_start_with_code_3(world: World) -> None:
    done = world.train(optimizer_type="no_such_library.Class")
    assert done.returncode == 3
    assert "pip install no_such_library" in done.stdout + done.stderr
