"""Optimizers by name, their arguments, and what happens when one cannot be had."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from backend.errors import EnvironmentFault, InputError
from backend.train import optimizers

ROOT = Path(__file__).resolve().parents[2]


def groups() -> tuple[torch.nn.Parameter, list[dict[str, object]]]:
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    return parameter, [{"params": [parameter], "lr": 0.1, "name": "unet"}]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AdamW", {}),
        ("adamw", {"weight_decay": 0.0}),
        ("", {}),
        ("Adafactor", {"relative_step": False}),
        ("AdaFactor", {}),
    ],
)
def test_every_optimizer_moves_against_the_gradient(name: str, arguments: dict[str, object]) -> None:
    parameter, rows = groups()
    optimizer = optimizers.make(name, rows, 0.1, dict(arguments))
    for _ in range(3):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert (parameter < 1).all()


def test_arguments_are_python_literals() -> None:
    found = optimizers.parse_arguments(["weight_decay=0.01", "betas=.9,.999", "relative_step=False"])
    assert found == {"weight_decay": 0.01, "betas": (0.9, 0.999), "relative_step": False}


@pytest.mark.parametrize("item", ["weight_decay", "betas=[1", "eps=abc"])
def test_an_argument_that_cannot_be_read_is_named(item: str) -> None:
    with pytest.raises(InputError, match="optimizer argument"):
        optimizers.parse_arguments([item])


def test_an_unknown_optimizer_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="AdamW"):
        optimizers.find("AdanW")


def test_an_argument_the_optimizer_does_not_take_is_an_input_error() -> None:
    with pytest.raises(InputError, match="does not accept"):
        optimizers.make("AdamW", groups()[1], 0.1, {"momentum": 0.9})


def test_adafactor_with_relative_steps_sets_its_own_rate() -> None:
    assert optimizers.sets_own_rate("AdaFactor", {})
    assert not optimizers.sets_own_rate("AdaFactor", {"relative_step": False})
    assert not optimizers.sets_own_rate("AdamW", {})


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_a_missing_library_names_the_replacement() -> None:
    problem = optimizers.missing("AdamW8bit")
    assert problem is not None and "AdamW" in problem.next and "--allow_fallback" in problem.next
    with pytest.raises(EnvironmentFault):
        optimizers.make("AdamW8bit", groups()[1], 0.1, {})


def test_description_is_the_class_path_with_its_arguments() -> None:
    optimizer = optimizers.make("AdamW", groups()[1], 0.1, {"weight_decay": 0.01})
    assert (
        optimizers.describe(optimizer, {"weight_decay": 0.01}) == "torch.optim.adamw.AdamW(weight_decay=0.01)"
    )


def test_our_adamw_is_torch_adamw_to_the_bit_and_imports_no_compiler() -> None:
    code = """
import sys, torch
from backend.train import optimizers
results = []
for make in (lambda g: optimizers.make("AdamW", g, 0.1, {"weight_decay": 0.1}), lambda g: torch.optim.AdamW(g, lr=0.1, weight_decay=0.1, fused=True)):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(5, 5))
    optimizer = make([{"params": [parameter], "lr": 0.01}])
    for _ in range(4):
        parameter.grad = torch.randn(5, 5)
        optimizer.step()
        optimizer.zero_grad()
    if not results:
        assert "torch._dynamo" not in sys.modules, "the compiler was imported"
    results.append((parameter.detach().clone(), optimizer.state_dict()["state"][0]["exp_avg_sq"]))
assert all(torch.equal(a, b) for a, b in zip(*results))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
