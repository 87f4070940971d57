"""Precision, memory and speed switches against the plain path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from backend.families.parts import attention, checkpointing
from backend.families.parts.attention import set_attention
from backend.families.parts.checkpointing import Checkpointed
from backend.families.parts.lowbit import STORED, StoredConv2d, StoredLinear, store_in_8_bits
from backend.families.parts.unet import UNet, UNetShape
from backend.settings import Settings, check
from backend.train.encoding import encode_pictures
from backend.train.fused import FusedBackward
from backend.train.loop import train
from backend.train.machine import compile_denoiser
from tests.train.small import Events, draw_pictures, start

SHAPE = UNetShape(widths=(8, 16), depths=(1, 0), layers=1, context_width=8, heads=2, norm_groups=4)


def unet(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(SHAPE).eval().requires_grad_(False)


def passed(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Output, and the gradient of the input."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    context = torch.randn(2, 5, 8, generator=generator)
    output = model(noisy, torch.tensor([10, 900]), context)
    output.square().sum().backward()
    assert noisy.grad is not None
    return output.detach(), noisy.grad


def test_a_base_model_in_8_bits_computes_with_the_rounded_weights() -> None:
    stored, rounded = unet(), unet()
    layers = [m for m in rounded.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    for layer in layers:
        layer.weight.data = layer.weight.data.to(STORED).float()
    plain = passed(unet())[0]
    assert store_in_8_bits(stored, torch.float32) == len(layers) > 20
    output, gradient = passed(stored)
    expected, expected_gradient = passed(rounded)
    assert torch.equal(output, expected)
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)
    assert not torch.equal(output, plain) and torch.allclose(output, plain, atol=0.2)
    kept = {m.stored.dtype for m in stored.modules() if isinstance(m, (StoredLinear, StoredConv2d))}
    assert kept == {STORED}


def test_8_bits_are_all_that_is_kept_for_the_backward_pass() -> None:
    model = unet()
    shapes = {tuple(m.weight.shape) for m in model.modules() if type(m) in (nn.Linear, nn.Conv2d)}
    store_in_8_bits(model, torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        passed(model)
    weights = [
        t for t in kept if tuple(t.shape) in shapes or tuple(t.T.shape if t.dim() == 2 else ()) in shapes
    ]
    assert weights and {t.dtype for t in weights} == {STORED}


def test_weights_beyond_the_range_of_8_bits_are_cut_off() -> None:
    layer = nn.Sequential(nn.Linear(2, 1, bias=False))
    layer[0].weight.data = torch.tensor([[1e6, -1e6]])
    store_in_8_bits(layer, torch.float32)
    assert layer[0].weight.tolist() == [[448.0, -448.0]]


def test_attention_in_parts_is_the_same_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SLICE", 7)  # of 64 queries
    parts: list[int] = []
    original = attention.F.scaled_dot_product_attention
    plain, sliced = unet(), unet()
    assert set_attention(sliced, "sliced")
    expected = passed(plain)

    def count(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts.append(q.shape[2])
        return original(q, k, v)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", count)
    found = passed(sliced)
    assert max(parts) == 7 and len(parts) > 20  # again in the backward pass
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not set_attention(nn.Linear(2, 2), "sliced")


def test_checkpoints_may_wait_outside_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    parked: list[int] = []
    original = checkpointing.park

    def count(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        parked.append(len(inputs))
        return original(inputs)

    monkeypatch.setattr(checkpointing, "park", count)
    expected = passed(unet())
    for parks in (False, True):
        model = unet()
        for module in model.modules():
            if isinstance(module, Checkpointed):
                module.checkpointing, module.parked = True, parks
        found = passed(model)
        assert bool(parked) is parks
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


class Holder:
    """What a family's model is to the compiler."""

    def __init__(self) -> None:
        self.denoiser = unet()


def test_a_compiled_denoiser_gives_the_same_numbers() -> None:
    model: Any = Holder()
    settings = Settings().replace(torch_compile=True, dynamo_backend="eager")
    compile_denoiser(settings, model)
    assert model.denoiser._compiled_call_impl is not None
    for one, other in zip(passed(model.denoiser), passed(unet()), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def adafactor(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(weights, lr=0.01, relative_step=False, scale_parameter=False)


def test_steps_in_the_backward_pass_are_those_after_it() -> None:
    def weights() -> list[nn.Parameter]:
        generator = torch.Generator().manual_seed(0)
        return [nn.Parameter(torch.randn(4, 4, generator=generator)) for _ in range(3)]

    plain, fused = weights(), weights()
    after, within = adafactor(plain), adafactor(fused)
    watch = FusedBackward(within)
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    for step in range(4):
        for group in (*after.param_groups, *within.param_groups):
            group["lr"] = 0.01 / (step + 1)
        for own in (plain, fused):
            (x @ own[0] @ own[1] @ own[2]).square().mean().backward()
        assert all(weight.grad is None for weight in fused)
        norm = nn.utils.clip_grad_norm_(plain, float("inf"))
        assert torch.allclose(watch.norm(), norm)
        after.step()
        within.step()
        after.zero_grad()
        assert all(torch.equal(one, other) for one, other in zip(plain, fused, strict=True))
    assert after.state_dict().keys() == within.state_dict().keys()


def test_each_gradient_is_clipped_alone() -> None:
    weight = nn.Parameter(torch.zeros(2))
    FusedBackward(torch.optim.SGD([weight], lr=1.0), max_norm=0.5)
    (weight * torch.tensor([3.0, 4.0])).sum().backward()
    assert torch.allclose(weight, -0.5 * torch.tensor([0.6, 0.8]), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"mixed_precision": "bf16", "full_bf16": True},
        {
            "optimizer_type": "AdaFactor",
            "fused_backward_pass": True,
            "optimizer_args": ["relative_step=False"],
        },
        {"mixed_precision": "bf16", "fp8_base": True},
        {
            "mixed_precision": "bf16",
            "full_bf16": True,
            "fp8_base": True,
            "optimizer_type": "AdaFactor",
            "fused_backward_pass": True,
            "optimizer_args": ["relative_step=False"],
        },
    ],
    ids=["full_bf16", "fused", "fp8", "all"],
)
def test_a_run_with_a_switch_is_near_the_plain_one(options: dict[str, Any], tmp_path: Path) -> None:
    plain = {key: value for key, value in options.items() if key in ("optimizer_type", "optimizer_args")}
    folder = draw_pictures(tmp_path / "pictures")
    losses: list[list[float]] = []
    parameters: list[nn.Parameter] = []
    for name, chosen in (("plain", plain), ("switch", options)):
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision otherwise
        session, position, events, _ = start(folder, tmp_path / name, max_grad_norm=0, **chosen)
        train(session, position)
        losses.append([record["loss"] for record in events.of("step")])
        parameters = list(session.method.trainable.parameters())
        assert (session.rounding is None) == (not chosen.get("full_bf16"))
        assert (session.fused is None) == (not chosen.get("fused_backward_pass"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[1] == pytest.approx(losses[0], rel=0.1) and len(losses[0]) == 6
    wanted = torch.bfloat16 if options.get("full_bf16") else torch.float32
    assert {parameter.dtype for parameter in parameters} == {wanted}
    assert all(torch.isfinite(parameter).all() for parameter in parameters)


class Overflowing:
    """A VAE that overflows in half precision."""

    family = "sd1"

    def __init__(self, always: bool = False) -> None:
        self.vae = nn.Linear(1, 1, dtype=torch.float16)
        self.always = always

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        half = self.vae.weight.dtype == torch.float16
        return pixels / 0 if half or self.always else pixels + noise


def test_a_vae_that_overflows_goes_on_in_full_precision() -> None:
    model: Any = Overflowing()
    pixels, noise, events = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), Events()
    for _ in range(2):
        assert torch.equal(encode_pictures(model, pixels, noise, events), pixels)
    assert model.vae.weight.dtype == torch.float32
    assert len(events.of("note")) == 1
    hopeless: Any = Overflowing(always=True)
    assert not encode_pictures(hopeless, pixels, noise, events).isfinite().any()  # no value is made up


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"full_fp16": True}, "full_fp16"),
        ({"full_bf16": True, "mixed_precision": "fp16"}, "full_bf16"),
        ({"fp8_base": True}, "fp8_base"),
        ({"fused_backward_pass": True}, "fused_backward_pass"),
        (
            {"fused_backward_pass": True, "optimizer_type": "AdaFactor", "gradient_accumulation_steps": 2},
            "fused_backward_pass",
        ),
        (
            {"fused_backward_pass": True, "optimizer_type": "AdaFactor", "num_processes": 2},
            "fused_backward_pass",
        ),
        ({"torch_compile": True, "dynamo_backend": "no"}, "dynamo_backend"),
        ({"num_machines": 2, "num_processes": 2}, "main_process_ip"),
        ({"machine_rank": 1}, "machine_rank"),
    ],
)
def test_what_cannot_stand_together_is_refused(options: dict[str, Any], key: str) -> None:
    verdict = check(Settings().replace(**options), complete=False)
    assert key in [problem.key for problem in verdict.errors]
