"""What needs an NVIDIA card: half precision, and the switches for memory and speed. Not yet run on one."""

from __future__ import annotations

from importlib.util import find_spec
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


SWITCHES: list[dict[str, Any]] = [
    {"mixed_precision": "fp16", "full_fp16": True, "optimizer_args": ["eps=1e-4"]},
    {"mixed_precision": "bf16", "full_bf16": True},
    {"mixed_precision": "bf16", "fp8_base": True},
    {"mixed_precision": "bf16", "fp8_base": True, "fp8_base_unet": True, "gradient_checkpointing": True},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "cpu_offload_checkpointing": True},
    {"mem_eff_attn": True},
    {"xformers": True},
    {"highvram": True, "network_train_unet_only": True, "cache_text_encoder_outputs": True},
    {"torch_compile": True},
    {"mixed_precision": "bf16", "optimizer_type": "AdaFactor", "fused_backward_pass": True,
     "optimizer_args": ["relative_step=False"]},
]  # fmt: skip


@pytest.mark.parametrize("options", SWITCHES, ids=lambda options: "-".join(options))
def test_a_switch_leaves_the_losses_near_those_of_the_plain_path(
    world: World, options: dict[str, Any]
) -> None:
    if options.get("xformers") and find_spec("xformers") is None:
        pytest.skip("xformers is not installed")
    plain = ("mixed_precision", "optimizer_type", "optimizer_args", "network_train_unet_only")
    losses: list[list[float]] = []
    for chosen in ({key: value for key, value in options.items() if key in plain}, options):
        done = world.train(**chosen, max_train_steps=4, max_grad_norm=0)
        assert done.returncode == 0, done.stdout + done.stderr
        losses.append([record["loss"] for record in events(world.newest_run(), "step")])
    near = 0.1 if options.get("fp8_base") else 0.03
    assert losses[1] == pytest.approx(losses[0], rel=near)


def test_8_bits_take_half_of_the_memory_of_16() -> None:
    from backend.families.parts.lowbit import store_in_8_bits

    layers = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(8)))
    layers.to("cuda", torch.bfloat16).requires_grad_(False)
    before = torch.cuda.memory_allocated()
    store_in_8_bits(layers, torch.bfloat16)
    assert torch.cuda.memory_allocated() < before - 7 * 2048 * 2048
    x = torch.randn(4, 2048, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    layers(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_parked_checkpoints_leave_the_card() -> None:
    from backend.families.parts.checkpointing import Checkpointed

    class Blocks(Checkpointed):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(1024, 1024) for _ in range(16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = self.run(layer, x)
            return x

    peaks: list[int] = []
    for parked in (False, True):
        blocks = Blocks().to("cuda").requires_grad_(False)
        blocks.checkpointing, blocks.parked = True, parked
        x = torch.randn(16384, 1024, device="cuda", requires_grad=True)
        torch.cuda.reset_peak_memory_stats()
        blocks(x).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated())
        del blocks, x
    assert peaks[1] < 0.6 * peaks[0]
