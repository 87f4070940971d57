"""Steps of bfloat16 weights: small ones count, and the same run gives the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backend import keyed
from backend.train import optimizers, rounding
from backend.train.fused import FusedBackward
from backend.train.rounding import rounded, stochastically


def drawn(seed: int) -> torch.Generator:
    return keyed.generator(seed, "test")


def test_values_are_rounded_to_a_neighbour_as_often_as_they_are_near_it() -> None:
    low, high = 1.0, 1.0078125  # neighbours in bfloat16
    for share in (0.0, 0.1, 0.5, 0.9):
        values = torch.full((20_000,), low + share * (high - low))
        found = stochastically(values, drawn(1)).float()
        assert set(found.unique().tolist()) <= {low, high}
        assert float((found == high).float().mean()) == pytest.approx(share, abs=0.02)
        assert torch.equal(stochastically(-values, drawn(1)).float(), -found)


def test_what_bfloat16_holds_stays_as_it_is() -> None:
    values = torch.tensor([0.0, -0.0, 1.5, -3.0e38, 2.0**-130, float("inf"), -float("inf"), float("nan")])
    values = values.to(torch.bfloat16).float()
    found = stochastically(values, drawn(2)).float()
    assert torch.equal(found[:-1], values[:-1]) and bool(found[-1].isnan())


def trained(
    name: str, seed: int | None, steps: int = 200, rate: float = 2e-4, inside: bool = False
) -> list[Tensor]:
    """Two weights drawn to 1.1 from 1, with rounding by chance unless ``seed`` is None.

    ``inside``: each steps within the backward pass, as with ``fused_backward_pass``.
    """
    weights = [nn.Parameter(torch.ones(40, 10, dtype=torch.bfloat16)) for _ in range(2)]
    arguments = {"relative_step": False, "scale_parameter": False} if name == "AdaFactor" else {}
    made = optimizers.make(name, [{"params": weights, "lr": rate, "name": "unet"}], rate, arguments)
    kept = None if seed is None else rounded(made, seed, name)
    fused = FusedBackward(made) if inside else None
    for step in range(steps):
        if kept is not None:
            kept.at(step)
        sum(((weight - 1.1) ** 2).sum() for weight in weights).backward()
        if fused is not None:
            fused.norm()
        made.step()
        made.zero_grad()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("name", ["AdamW", "AdaFactor", "SGD"])
def test_steps_below_the_precision_count_on_average(name: str) -> None:
    rate = 2e-3 if name == "SGD" else 2e-4
    lost, found = trained(name, None, rate=rate), trained(name, 5, rate=rate)
    assert all(torch.equal(weight, torch.ones_like(weight)) for weight in lost)
    for weight in found:
        assert weight.dtype == torch.bfloat16
        assert 1.01 < float(weight.float().mean()) < 1.12
    again = trained(name, 5, rate=rate)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert not torch.equal(found[0], trained(name, 6, rate=rate)[0])
    assert not torch.equal(found[0], found[1]), "each weight has draws of its own"


def test_a_few_weights_at_a_time_give_what_all_together_give(monkeypatch: pytest.MonkeyPatch) -> None:
    together = trained("AdamW", 3, steps=20)
    monkeypatch.setattr(rounding, "CHUNK", 1)
    assert all(torch.equal(a, b) for a, b in zip(together, trained("AdamW", 3, steps=20), strict=True))


def test_the_memory_is_in_full_precision_and_the_weights_are_not() -> None:
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    made = optimizers.make("AdamW", [{"params": [weight], "lr": 1e-3, "name": "unet"}], 1e-3, {})
    assert rounded(made, 1, "AdamW") is not None
    weight.sum().backward()
    made.step()
    assert weight.dtype == torch.bfloat16 and made.state[weight]["exp_avg_sq"].dtype == torch.float32


@pytest.mark.parametrize("name", ["AdaFactor", "AdamW"])
def test_steps_inside_the_backward_pass_are_rounded_as_those_after_it(name: str) -> None:
    lost, found = trained(name, None, inside=True), trained(name, 5, inside=True)
    assert all(torch.equal(weight, torch.ones_like(weight)) for weight in lost)
    assert all(weight.dtype == torch.bfloat16 for weight in found)
    assert all(torch.equal(one, other) for one, other in zip(found, trained(name, 5), strict=True))


def test_weights_that_step_together_inside_the_backward_pass_are_rounded() -> None:
    weights = [nn.Parameter(torch.ones(500, dtype=torch.bfloat16)) for _ in range(3)]
    made = optimizers.make("AdamW", [{"params": weights, "lr": 2e-4, "name": "unet"}], 2e-4, {})
    kept = rounded(made, 1, "AdamW")
    assert kept is not None
    fused = FusedBackward(made, bundles=[weights[:2], weights[2:]])
    for step in range(50):
        kept.at(step)
        sum((weight**2).sum() for weight in weights).backward()
        fused.norm()
        made.step()
        made.zero_grad()
    for weight in weights:
        assert weight.dtype == torch.bfloat16
        assert float(weight.detach().float().mean()) == pytest.approx(0.99, abs=0.004)


def test_full_precision_and_averaging_optimizers_are_left_alone() -> None:
    plain = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)
    assert rounded(plain, 1, "SGD") is None and type(plain) is torch.optim.SGD
    half = torch.optim.SGD([nn.Parameter(torch.ones(2, dtype=torch.bfloat16))], lr=1.0)
    assert rounded(half, 1, "AdamWScheduleFree") is None
