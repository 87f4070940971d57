"""Runs that go on from restore points, more than once and with other settings."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.conftest import World, events

pytestmark = pytest.mark.e2e


def test_a_chain_of_resumes_equals_a_straight_run(world: World) -> None:
    """A finished run is extended, then a new run goes on from its state: as if never interrupted."""
    assert world.train(output_name="straight", max_train_steps=9, shuffle_caption=True).returncode == 0
    first = world.train(output_name="chain", max_train_steps=3, shuffle_caption=True)
    assert first.returncode == 0, first.stdout + first.stderr
    run = world.newest_run()

    complete = world.python("-m", "backend.train", run, "--resume")
    assert complete.returncode == 2
    assert "complete at step 3" in complete.stdout and "more than 3 as max_train_steps" in complete.stdout
    assert events(run, "state")[-1]["state"] == "finished", (
        "what was asked too much does not make it a failure"
    )
    extended = world.python(
        "-m", "backend.train", run, "--resume", "--max_train_steps=6", "--save_state_on_train_end"
    )
    assert extended.returncode == 0, extended.stdout + extended.stderr
    assert "max_train_steps" in extended.stdout and "changes the result" in extended.stdout
    assert {row["what"]: row["effect"] for row in events(run, "differences")[-1]["rows"]} == {
        "max_train_steps": "changes",
        "save_state_on_train_end": "safe",
    }
    assert [record["step"] for record in events(run, "step")] == [1, 2, 3, 4, 5, 6]

    last = world.train(
        output_name="end", max_train_steps=9, shuffle_caption=True, seed=None, save_every_n_steps=1,
        save_last_n_steps=1, resume=world.home / "out" / "chain-state",
    )  # fmt: skip
    assert last.returncode == 0, last.stdout + last.stderr
    assert [record["step"] for record in events(world.newest_run(), "step")] == [7, 8, 9]
    names = sorted(path.name for path in (world.home / "out").glob("end*"))
    assert names == [f"end-step0000000{step}.safetensors" for step in (7, 8)] + ["end.safetensors"]
    straight, chained = (
        load_file(world.home / "out" / f"{name}.safetensors") for name in ("straight", "end")
    )
    assert all(torch.equal(straight[name], chained[name]) for name in straight)

    other = world.train(max_train_steps=12, network_dim=8, resume=world.home / "out" / "chain-state")
    assert other.returncode == 2
    assert "network_dim was 4 when the restore point was made and is 8 now" in other.stdout + other.stderr
    assert "Loading" not in other.stdout, "it is known before the model is loaded"
