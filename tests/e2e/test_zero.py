"""The optimizer's memory in parts (DeepSpeed) on two processors: it trains as a whole one, and the files are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import EnvironmentFault, InputError
from backend.settings import Settings, check
from backend.settings import deepspeed as library
from backend.train import zero
from backend.train.team import require_several
from tests.e2e.test_parts import require_alike, run
from tests.train.small import draw_pictures

TWO = {"deepspeed": True, "num_processes": 2}
ALIKE: dict[str, Any] = {"max_grad_norm": 0.1, "ema_decay": 0.5}
"""Of the two processes' runs: gradients are clipped, and a mean is kept of whole weights."""
ON_THE_PROCESSOR: dict[str, Any] = {"deepspeed": True, "zero_stage": 1, "offload_optimizer_device": "cpu"}


@pytest.mark.e2e
@pytest.mark.slow
def test_zero_trains_as_the_whole_does_and_goes_on(tmp_path: Path) -> None:
    """Needs the package. Last run on 2026-11-22 with DeepSpeed 0.19.8, torch 2.13.0 and accelerate 1.15.0, on two
    processors over gloo: all losses and norms equal to six digits, weights to 3e-8, both resumes to the digit."""
    if library.missing():
        pytest.skip("DeepSpeed is not installed")
    draw_pictures(tmp_path / "pictures" / "1_sks dog", 8)
    whole, two = run(tmp_path, "whole", **ALIKE), run(tmp_path, "two", deepspeed=True, **ALIKE)
    require_alike(tmp_path, whole, two, "two")
    half = tmp_path / "out" / "two-step00000002-state"
    again = run(tmp_path, "again", resume=str(half), **ALIKE, **ON_THE_PROCESSOR)
    assert again["step"] == two["step"][2:], "it goes on to the bit, wherever the memory lies"
    apart = run(tmp_path, "apart", resume=str(half), **ALIKE)
    assert apart["step"] == pytest.approx(two["step"][2:], rel=1e-4), "the restore point is whole"


class Laid:
    """What DeepSpeed's optimizer tells of its one row, in the process that has all of it."""

    def __init__(self, weights: list[torch.nn.Parameter]) -> None:
        self.bit16_groups = [weights]
        self.round_robin_bit16_offsets = [[0, 8, 11]]  # six numbers, two that fill up, three numbers, one
        self.bit16_groups_flat = [torch.zeros(12)]
        self.single_partition_of_fp32_groups = [torch.zeros(12, requires_grad=True)]
        self.optimizer = torch.optim.AdamW(self.single_partition_of_fp32_groups)


def test_memory_is_laid_out_in_a_row_and_cut_back(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [
        torch.nn.Parameter(torch.zeros(2, 3)),
        torch.nn.Parameter(torch.zeros(3)),
        torch.nn.Parameter(torch.zeros(())),
    ]
    memory = [
        {"step": torch.tensor(5.0), "exp_avg": torch.arange(6.0).view(2, 3)},
        {"step": torch.tensor(5.0), "exp_avg": torch.tensor([7.0, 8.0, 9.0])},
        {},  # never had a gradient
    ]
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "all_gather", lambda parts, own: parts[0].copy_(own))
    laid = Laid(weights)
    row = zero.Row(laid, 0, weights)
    assert row.gathered() == [{}, {}, {}]
    row.put(memory)
    inside = laid.optimizer.state[laid.single_partition_of_fp32_groups[0]]
    assert inside["exp_avg"].tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 7, 8, 9, 0]
    *cut, last = row.gathered()
    for found, known in zip(cut, memory, strict=False):
        assert found.keys() == known.keys() and all(torch.equal(found[key], known[key]) for key in known)
    assert last["exp_avg"].shape == () and last["exp_avg"] == 0


@pytest.mark.parametrize(
    "option",
    [{"fsdp": True}, {"fused_backward_pass": True}, {"scale_weight_norms": 1.0}, {"optimizer_type": "AdaFactor"},
     {"optimizer_type": "Prodigy"}, {"optimizer_type": "AdamW8bit"}, {"torch_compile": True},
     {"mixed_precision": "fp16"}, {"zero_stage": 0}, {"zero_stage": 3}, {"offload_optimizer_device": "nvme"},
     {"lr_scheduler_type": "CosineAnnealingLR"},
     {"training_method": "dreambooth", "stop_text_encoder_training": 5}],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused_before_the_start(option: dict[str, Any]) -> None:
    verdict = check(Settings.from_flat({**TWO, **option}), complete=False)
    key = next(reversed(option))
    assert any(key in problem.what or key == problem.key for problem in verdict.errors)
    assert not check(Settings.from_flat(TWO), complete=False).errors


def test_it_needs_its_package_and_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match="deepspeed has nothing to split up"):
        require_several(Settings.from_flat({"deepspeed": True}))
    monkeypatch.setattr(library, "is_installed", lambda _: False)
    zero.require(Settings())
    with pytest.raises(EnvironmentFault, match="DeepSpeed is not installed") as raised:
        zero.require(Settings.from_flat(TWO))
    assert "pip install deepspeed" in raised.value.problems[0].next
