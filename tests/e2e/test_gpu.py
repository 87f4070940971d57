"""What needs an NVIDIA card: half precision, and resuming there. Not yet run on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.conftest import World, events

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA card"),
]


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("cached", [True, None], ids=["cached", "live"])
def test_training_moves_and_stays_finite(world: World, precision: str, cached: bool | None) -> None:
    options: dict[str, Any] = {"mixed_precision": precision, "cache_latents": cached, "max_train_steps": 8}
    done = world.train(**options, sample_prompt_text="sks shape --w 64 --h 64 --s 2", sample_every_n_steps=4)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = load_file(world.home / "out" / "result.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert any(tensor.abs().sum() > 0 for name, tensor in weights.items() if "lora_up" in name)
    assert len(events(world.newest_run(), "sample")) == 2


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_the_first_loss_is_that_of_the_processor(
    world: World, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    for visible in (None, ""):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        done = world.train(mixed_precision=precision, allow_fallback=True, max_train_steps=1)
        assert done.returncode == 0, done.stdout + done.stderr
        losses.append(events(world.newest_run(), "step")[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4 if precision == "no" else 2e-2)
