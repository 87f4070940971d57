"""Optimizers by name: what they are, that they learn, and what happens when one cannot be had."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import EnvironmentFault, InputError
from backend.settings import Settings
from backend.settings import optimizers as table
from backend.settings.optimizers import KINDS, OptimizerKind, find, read_optimizer, unavailable
from backend.train import environment, optimizers

making = importlib.import_module("backend.train.optimizers.make")
"""The module; the package has a function of this name."""
ROOT = Path(__file__).resolve().parents[2]
OF_TORCH = ("RMSprop", "NAdam", "torch.optim.Adafactor", "pytorch_optimizer.ScheduleFreeAdamW")
RATES = {"SGDNesterov": 1.0, "SGDNesterov8bit": 1.0, "SGDScheduleFree": 5.0, "RAdamScheduleFree": 0.05}


def needs(name: str) -> Any:
    """A test parameter, skipped with a word where the optimizer's library is missing."""
    lacking = unavailable([name]).get(name, "")
    return pytest.param(name, marks=pytest.mark.skipif(bool(lacking), reason=f"{name}: {lacking}"))


ALL = [needs(name) for name in (*table.NAMES, *OF_TORCH)]


class Toy:
    """Least squares over two groups, one of them large enough for 8-bit states."""

    def __init__(self, name: str, items: tuple[str, ...] = (), rate: float | None = None) -> None:
        generator = torch.Generator().manual_seed(3)
        self.weights = [torch.nn.Parameter(torch.randn(n, 64, generator=generator) * 0.1) for n in (72, 4)]
        self.goals = [torch.randn(p.shape, generator=generator) for p in self.weights]
        kind = find(name)
        self.rate = rate if rate is not None else 1.0 if kind.finds_rate else RATES.get(name, 0.01)
        groups = [
            {"params": [p], "lr": self.rate, "name": part}
            for p, part in zip(self.weights, ("unet", "text_encoder"), strict=True)
        ]
        arguments = optimizers.parse_arguments(items)
        self.optimizer = optimizers.make(name, groups, self.rate, arguments)

    def loss(self) -> torch.Tensor:
        pairs = zip(self.weights, self.goals, strict=True)
        return torch.stack([(p - goal).pow(2).mean() for p, goal in pairs]).sum()

    def steps(self, count: int) -> list[float]:
        losses: list[float] = []
        for _ in range(count):
            loss = self.loss()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses


FAST = {
    "Prodigy": ("d0=1e-3",),
    "prodigyplus.ProdigyPlusScheduleFree": ("d0=1e-3",),
    **{name: ("d0=1e-3",) for name in table.NAMES if name.startswith("DAdapt")},
    "DAdaptSGD": ("d0=0.1",),
    "DAdaptation": ("d0=1e-2", "growth_rate=1.02"),
    "DAdaptAdamPreprint": ("d0=1e-2", "growth_rate=1.02"),
    "DAdaptAdam": ("d0=1e-2", "growth_rate=1.02"),
}
"""A first guess of the step size that suits so short a training."""


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_learns(name: str) -> None:
    toy = Toy(name, FAST.get(name, ()))
    losses = toy.steps(25)
    assert losses[-1] < 0.98 * losses[0], losses[::6]


@pytest.mark.parametrize("kind", [pytest.param(k, id=k.name) for k in KINDS if k.takes is not None])
def test_the_arguments_known_are_those_of_the_library(kind: OptimizerKind) -> None:
    if unavailable([kind.name]):
        pytest.skip(f"{kind.name}: {unavailable([kind.name])[kind.name]}")
    found = inspect.signature(making.load_class(kind).__init__).parameters
    decided = {"self", "params", "lr", "nesterov", "optim_bits", "args", "is_paged", "fused_back_pass"}
    assert set(kind.takes or ()) == set(found) - decided


def test_classes_of_torch_are_all_known_or_refused() -> None:
    classes = {
        name for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }  # fmt: skip
    known = {*table.TORCH_NAMES, "AdamW", "Adafactor", "Optimizer", "LBFGS", "SparseAdam"}
    assert classes == known


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("", "AdamW"), ("adamw8BIT", "AdamW8bit"), ("Adafactor", "AdaFactor"), ("dadaptation", "DAdaptation"),
        ("rmsprop", "RMSprop"), ("torch.optim.AdamW", "AdamW"), ("torch.optim.SGD", "torch.optim.SGD"),
        ("bitsandbytes.optim.AdamW8bit", "AdamW8bit"), ("prodigyopt.prodigy.Prodigy", "Prodigy"),
        ("torch.optim.sgd.SGD", "torch.optim.sgd.SGD"), ("torch.optim.adamw.AdamW", "AdamW"),
        ("bitsandbytes.optim.lamb.LAMB", "bitsandbytes.optim.lamb.LAMB"),
        ("some_library.deep.Class", "some_library.deep.Class"),
    ],
)  # fmt: skip
def test_names_are_read_in_any_case_and_paths_as_they_are(written: str, name: str) -> None:
    assert read_optimizer(written) == name


def test_arguments_are_python_literals() -> None:
    found = optimizers.parse_arguments(["weight_decay=0.01", "betas=.9,.999", "relative_step=False"])
    assert found == {"weight_decay": 0.01, "betas": (0.9, 0.999), "relative_step": False}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("AdamW", {"momentum": 0.9}, "does not accept its arguments"),
        ("Muon", {"nonsense": 1}, "does not accept its arguments"),
        ("torch.optim.NoSuch", {}, "has no NoSuch"),
        ("torch.nn.Linear", {}, "Linear is no torch optimizer"),
        ("pytorch_optimizer.SAM", {}, "cannot be used as an optimizer|does not accept its arguments"),
    ],
)
def test_what_cannot_be_made_says_why(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        optimizers.make(name, groups(), 0.1, arguments)


def groups(*rates: float) -> list[dict[str, Any]]:
    return [
        {"params": [torch.nn.Parameter(torch.ones(4, 4))], "lr": rate, "name": f"part {index}"}
        for index, rate in enumerate(rates or (0.1,))
    ]


@pytest.mark.parametrize("name", [needs("Prodigy"), needs("DAdaptAdam")])
def test_several_rates_are_refused_where_one_step_size_is_found(name: str) -> None:
    with pytest.raises(InputError, match=r"part 0 1, part 1 0\.5"):
        optimizers.make(name, groups(1.0, 0.5), 1.0, {})
    optimizers.make(name, groups(1.0, 0.0), 0.0, {})


def test_adafactor_with_relative_steps_sets_its_own_rate() -> None:
    assert optimizers.sets_own_rate("AdaFactor", {})
    assert not optimizers.sets_own_rate("AdaFactor", {"relative_step": False})
    assert not optimizers.sets_own_rate("AdamW", {})
    made = optimizers.make("AdaFactor", groups(5.0), 5.0, {})
    assert made.param_groups[0]["lr"] is None and made.param_groups[0]["scale_parameter"] is True
    plain = optimizers.make("AdaFactor", groups(0.5), 0.5, {"relative_step": False})
    assert plain.param_groups[0]["lr"] == 0.5 and plain.param_groups[0]["scale_parameter"] is True


@pytest.mark.parametrize("items", [(), ("scale_parameter=False",), ("warmup_init=True",)])
def test_adafactors_logged_rate_is_the_one_it_uses(items: tuple[str, ...]) -> None:
    toy = Toy("AdaFactor", items)
    assert set(optimizers.rates(toy.optimizer)) == {"unet", "text_encoder"}
    for _ in range(3):
        toy.steps(1)
        group = toy.optimizer.param_groups[0]
        used: Any = toy.optimizer
        expected = float(used._get_lr(group, toy.optimizer.state[toy.weights[0]]))
        assert float(optimizers.rates(toy.optimizer)["unet"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", [needs("Prodigy"), needs("DAdaptLion"), needs("DAdaptation")])
def test_the_step_size_found_is_logged_before_the_rate(name: str) -> None:
    toy = Toy(name, ("d0=1e-3",))
    toy.steps(5)
    found = optimizers.rates(toy.optimizer)
    assert list(found) == ["d*lr/unet", "d*lr/text_encoder", "unet", "text_encoder"]
    assert found["unet"] == 1.0 and found["d*lr/unet"] == toy.optimizer.param_groups[0]["d"] > 1e-3


@pytest.mark.parametrize("name", [needs("AdamWScheduleFree")])
def test_the_warm_up_of_a_schedule_free_optimizer_is_logged(name: str) -> None:
    toy = Toy(name, ("warmup_steps=10",))
    toy.steps(5)
    assert optimizers.rates(toy.optimizer)["unet"] == pytest.approx(0.5 * toy.rate)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("AdamW", {"weight_decay": 0.01}, "torch.optim.adamw.AdamW(weight_decay=0.01)"),
        ("SGDNesterov", {}, "torch.optim.sgd.SGD(momentum=0.9)"),
        ("AdaFactor", {}, "transformers.optimization.Adafactor(relative_step=True)"),
    ],
)
def test_description_is_the_class_path_with_its_arguments(
    name: str, arguments: dict[str, Any], text: str
) -> None:
    made = optimizers.make(name, groups(), 0.1, arguments)
    assert optimizers.describe(made, optimizers.settled(name, arguments)) == text


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As on a machine that lacks some libraries."""

    def installed(module: str) -> bool:
        return module not in modules

    monkeypatch.setattr(table, "is_installed", installed)


def test_a_missing_library_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "bitsandbytes", "prodigyplus")
    assert unavailable()["AdamW8bit"] == "not installed: pip install bitsandbytes"
    assert "AdamW" not in unavailable()
    eight = table.missing_library("AdamW8bit")
    assert eight is not None and "use AdamW" in eight.next and "--allow_fallback" in eight.next
    plus = table.missing_library("prodigyplus.ProdigyPlusScheduleFree")
    assert plus is not None and "pip install prodigy-plus-schedule-free" in plus.next
    assert "--allow_fallback" not in plus.next
    with pytest.raises(EnvironmentFault) as caught:
        optimizers.make("AdamW8bit", groups(), 0.1, {})
    assert caught.value.exit_code == 3


def test_a_start_without_the_library_is_refused_or_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "bitsandbytes", "prodigyopt")
    asked = {
        "optimizer_type": "PagedLion8bit",
        "optimizer_args": ["min_8bit_size=1024", "betas=.9,.98"],
    }
    with pytest.raises(EnvironmentFault, match="pip install bitsandbytes"):
        environment.adapt(Settings.from_flat(asked))
    found, notes = environment.adapt(Settings.from_flat({**asked, "allow_fallback": True}))
    assert found.optimizer.optimizer_type == "Lion"
    assert found.optimizer.optimizer_args == ("betas=.9,.98",)
    assert "optimizer_type=Lion" in notes[0].what
    with pytest.raises(EnvironmentFault, match="needs the library prodigyopt"):
        environment.adapt(Settings.from_flat({"optimizer_type": "Prodigy", "allow_fallback": True}))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("bitsandbytes.optim.lamb.LAMB", "AdamW"),
        ("bitsandbytes.optim.AdEMAMix8bit", "AdamW"),
        ("bitsandbytes.optim.RMSprop8bit", "RMSprop"),
        ("bitsandbytes.optim.LARS", "SGDNesterov"),
    ],
)
def test_other_classes_of_bitsandbytes_are_replaced_too(
    name: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "bitsandbytes")
    found, notes = environment.adapt(Settings.from_flat({"optimizer_type": name, "allow_fallback": True}))
    assert found.optimizer.optimizer_type == instead
    assert len(notes) == 1 and f"optimizer_type={instead}" in notes[0].what


def test_a_library_of_ones_own_that_is_missing_or_broken_is_an_environment_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvironmentFault, match="pip install no_such_library_at_all"):
        optimizers.make("no_such_library_at_all.Class", groups(), 0.1, {})
    (tmp_path / "broken_optimizers.py").write_text("raise OSError('a part is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentFault, match="a part is missing"):
        optimizers.make("broken_optimizers.Class", groups(), 0.1, {})


def test_libraries_are_imported_only_when_chosen() -> None:
    libraries = sorted({kind.library for kind in KINDS if kind.library})
    code = (
        "import sys, backend.train.optimizers as o, backend.settings.optimizers as t; t.unavailable()\n"
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_an_optimizer_with_triton_or_fused_kernels_takes_torchs_own_switches() -> None:
    made = optimizers.make("AdamW", groups(), 0.1, {"foreach": True})
    assert made.param_groups[0]["fused"] is None and made.param_groups[0]["foreach"] is True
    assert importlib.import_module("backend.train.quick_adamw").AdamW is type(made)


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
