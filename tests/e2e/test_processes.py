"""Two processes on processors: they train as one with twice the batch, stop together, and go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from backend.jobs.control import send
from backend.jobs.process import start
from backend.jobs.runs import open_run
from backend.jobs.state import state
from tests.e2e.conftest import ROOT, World, events
from tests.e2e.test_training import same, wait_for

pytestmark = pytest.mark.e2e

OPTIONS: dict[str, Any] = {
    "train_batch_size": 1, "enable_bucket": True, "min_bucket_reso": 32, "network_train_unet_only": True,
    "flip_aug": True, "noise_offset": 0.05, "max_data_loader_n_workers": 1, "max_train_epochs": 1,
    "max_train_steps": None,
    # A large epsilon: divided by next to nothing, the rounding of sums in another order would show.
    "optimizer_args": ["eps=1e-3"],
}  # fmt: skip
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def difference(one: Path, other: Path) -> float:
    """The largest difference of any number, against the size of what was learned."""
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    learned = max(float(tensor.abs().max()) for name, tensor in a.items() if "lora_up" in name)
    assert learned > 0
    return max(float((a[name] - b[name]).abs().max()) for name in a) / learned


@pytest.fixture(scope="module")
def world(make_world: Callable[[], World]) -> World:
    return make_world()


def test_two_processes_are_one_with_twice_the_batch(world: World) -> None:
    alone = world.train(**{**OPTIONS, "train_batch_size": 2}, output_name="alone")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    single = world.newest_run()
    line = world.options(**OPTIONS, output_name="both")
    both = world.python(*TORCHRUN, "tools/train_network.py", *line, "--sample_prompt_text=x --w 64 --h 64 --s 1",
                        "--sample_at_first", "--save_every_n_steps=3", timeout=120)  # fmt: skip
    assert both.returncode == 0, both.stdout + both.stderr
    run = world.newest_run()
    assert run != single and len(list((world.home / "runs").iterdir())) == 3  # with the lock's file
    ours, theirs = events(run, "step"), events(single, "step")
    assert [e["loss"] for e in ours] == pytest.approx([e["loss"] for e in theirs], rel=2e-3)
    assert [e["step"] for e in ours] == list(range(1, len(theirs) + 1))
    assert len(events(run, "result")) == 1 and len(events(run, "sample")) == 1
    saved = [e["path"] for e in events(run, "saved")]
    assert len(saved) == len(set(saved)) and (world.home / "out" / "both-step00000003.safetensors").is_file()
    assert (
        difference(world.home / "out" / "alone.safetensors", world.home / "out" / "both.safetensors") < 1e-2
    )


def test_they_stop_at_the_same_step_and_go_on_to_the_bit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = world.options(**OPTIONS, output_name="stopped", num_processes=2)
    known = world.newest_run()
    process = subprocess.Popen(
        [sys.executable, "tools/train_network.py", *line], cwd=ROOT, env=world.environment, stdout=subprocess.PIPE
    )  # fmt: skip
    wait_for(lambda: world.newest_run() != known and bool(events(world.newest_run(), "step")), 120)
    run = open_run(world.newest_run())
    send(run, "pause")
    wait_for(lambda: state(run).state == "paused")
    send(run, "stop")
    assert process.wait(60) == 0
    reached = events(run.path, "saved")[-1]["step"]
    assert state(run).state == "stopped" and 1 <= reached < events(run.path, "plan")[0]["steps"]
    assert f"step {reached})" in run.log.read_text(encoding="utf-8")

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    assert start(run, resume=True).active  # as the page does
    wait_for(lambda: state(run).state in ("finished", "failed"), 120)
    assert state(run).state == "finished", run.log.read_text(encoding="utf-8")
    steps = [record["step"] for record in events(run.path, "step")]
    assert steps == list(range(1, steps[-1] + 1))
    assert same(world.home / "out" / "both.safetensors", world.home / "out" / "stopped.safetensors")


def test_a_fault_of_any_process_is_told_once_and_ends_all(world: World) -> None:
    # Found when the network is made, by both of them.
    options = {**OPTIONS, "network_module": "networks.oft", "scale_weight_norms": 1, "num_processes": 2}
    done = world.train(**options, output_name="failed")
    assert done.returncode == 2, done.stdout + done.stderr
    run = open_run(world.newest_run())
    assert len(events(run.path, "error")) == 1 and state(run).state == "failed"
    assert "scale_weight_norms" in str(events(run.path, "error")[0]["problems"])
