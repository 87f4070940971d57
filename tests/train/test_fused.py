"""Steps inside the backward pass in groups of weights give what steps after it give."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from backend.train import optimizers
from backend.train.fused import FusedBackward, by_block, of_equal_size


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def steps(model: nn.Sequential, bundles: Sequence[Sequence[Tensor]] | None, fused: bool) -> list[Tensor]:
    weights = list(model.parameters())
    made = optimizers.make("AdamW", [{"params": weights, "lr": 0.01, "name": "unet"}], 0.01, {})
    within = FusedBackward(made, bundles=bundles) if fused else None
    norms: list[Tensor] = []
    for index in range(4):
        model(torch.full((2, 6), 0.3 * index)).square().sum().backward()
        if within is None:
            norms.append(nn.utils.clip_grad_norm_(weights, float("inf")))
        else:
            assert all(weight.grad is None for weight in weights)
            norms.append(within.norm())
        made.step()
        made.zero_grad()
    return [*norms, *(weight.detach() for weight in weights)]


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_groups_change_nothing_but_when_weights_are_changed(count: int) -> None:
    plain, fused = network(), network()
    after = steps(plain, None, fused=False)
    within = steps(fused, of_equal_size(list(fused.parameters()), count), fused=True)
    for one, other in zip(after, within, strict=True):
        assert torch.allclose(one, other, rtol=1e-6)


def test_groups_are_of_equal_size_and_leave_nothing_out() -> None:
    weights = [torch.zeros(size) for size in (10, 10, 40, 10, 10, 10, 10)]
    bundles = of_equal_size(weights, 2)
    assert [sum(one.numel() for one in bundle) for bundle in bundles] == [60, 40]
    assert [id(one) for bundle in bundles for one in bundle] == list(map(id, weights))
    assert len(of_equal_size(weights[:2], 9)) == 2


def test_blocks_are_groups_and_the_rest_is_one() -> None:
    names = [
        "unet.x_embedder.w",
        "unet.joint_blocks.0.a",
        "unet.joint_blocks.0.b",
        "unet.joint_blocks.1.a",
        "unet.end",
    ]
    weights = [torch.zeros(1) for _ in names]
    found = by_block(weights, {id(weight): name for weight, name in zip(weights, names, strict=True)})
    assert [[names[[id(w) for w in weights].index(id(one))] for one in bundle] for bundle in found] == [
        ["unet.x_embedder.w", "unet.end"],
        ["unet.joint_blocks.0.a", "unet.joint_blocks.0.b"],
        ["unet.joint_blocks.1.a"],
    ]


def test_a_group_with_a_weight_that_was_not_used_steps_at_the_end() -> None:
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    made = torch.optim.SGD([used, idle], lr=1.0)
    fused = FusedBackward(made, bundles=[[used, idle]])
    for left in (0.5, 0.25):
        (0.25 * used.square()).sum().backward()
        assert used.grad is not None
        assert float(fused.norm()) > 0
        assert used.grad is None and used.tolist() == [left] * 2 and idle.tolist() == [1.0] * 2
