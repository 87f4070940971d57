"""Every optimizer goes on from a restore point on disk to the bit, whatever happens in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from backend.settings import optimizers as table
from backend.settings.optimizers import find
from backend.settings.sections import ScheduleSettings
from backend.train import optimizers
from backend.train.checkpoints import Position, State, load_state, save_state
from backend.train.schedule_class import ClassSchedule
from backend.train.schedules import Schedule
from tests.train.test_optimizers import ALL, FAST, Toy, needs

HALF, WHOLE = 5, 9
AVERAGING = [needs(name) for name in table.names_where(schedule_free=True)]


def toy_of(name: str) -> Toy:
    return Toy(name, FAST.get(name, ()))


def run(toy: Toy, schedule: Any, first: int, last: int) -> None:
    rates = [toy.rate] * len(toy.optimizer.param_groups)
    for step in range(first, last):
        if schedule is not None:
            schedule.apply(toy.optimizer.param_groups, rates, step)
        toy.steps(1)


def through_disk(toy: Toy, folder: Path) -> State:
    """What a restore point gives back of weights and optimizer."""
    weights = {str(index): p.detach() for index, p in enumerate(toy.weights)}
    memory = {"optimizer": toy.optimizer.state_dict(), "scaler": None}
    save_state(folder, State(Position(HALF), weights, memory))
    return load_state(folder)


def take(toy: Toy, state: State) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(toy.weights):
            parameter.copy_(state.weights[str(index)])
    optimizers.load_memory(toy.optimizer, state.optimizer["optimizer"])


def memory(toy: Toy) -> dict[str, Any]:
    """All numbers of an optimizer, by place."""
    found: dict[str, Any] = {}
    for index, group in enumerate(toy.optimizer.param_groups):
        found |= {f"group {index} {key}": value for key, value in group.items() if key != "params"}
        for parameter in group["params"]:
            found |= {f"state {index} {key}": v for key, v in toy.optimizer.state[parameter].items()}
    return found


def assert_same(one: Toy, other: Toy) -> None:
    for a, b in zip(one.weights, other.weights, strict=True):
        assert torch.equal(a, b)
    a, b = memory(one), memory(other)
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert type(value) is type(b[key]), key
        if isinstance(value, torch.Tensor):
            assert value.dtype == b[key].dtype and torch.equal(value, b[key]), key
        else:
            assert value == b[key], key


def schedule_for(name: str) -> Schedule | None:
    """A warm-up and a fall, unless the optimizer sets its rate itself or cannot begin at 0."""
    if find(name).name == "AdaFactor":
        return None
    return Schedule("cosine", WHOLE, warmup=0 if name == "DAdaptSGD" else 2)


@pytest.mark.parametrize("name", ALL)
def test_a_restore_point_on_disk_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    schedule = schedule_for(name)
    straight, first, second = toy_of(name), toy_of(name), toy_of(name)
    run(straight, schedule, 0, WHOLE)
    run(first, schedule, 0, HALF)
    take(second, through_disk(first, tmp_path / "state"))
    run(second, schedule, HALF, WHOLE)
    assert_same(straight, second)


@pytest.mark.parametrize("name", [needs("AdamW"), needs("SGDNesterov"), needs("Prodigy")])
@pytest.mark.parametrize(
    "section",
    [
        {"lr_scheduler_type": "OneCycleLR"},
        {"lr_scheduler_type": "CosineAnnealingWarmRestarts", "lr_scheduler_args": ("T_0=4",)},
    ],
    ids=("one cycle", "restarts"),
)
def test_a_schedule_class_goes_on_with_its_optimizer(
    name: str, section: dict[str, Any], tmp_path: Path
) -> None:
    def schedule(toy: Toy) -> ClassSchedule:
        rates = [toy.rate] * len(toy.weights)
        return ClassSchedule(ScheduleSettings(**section), WHOLE, toy.optimizer, rates)

    straight, first, second = toy_of(name), toy_of(name), toy_of(name)
    run(straight, schedule(straight), 0, WHOLE)
    run(first, schedule(first), 0, HALF)
    take(second, through_disk(first, tmp_path / "state"))
    run(second, schedule(second), HALF, WHOLE)
    assert_same(straight, second)


@pytest.mark.parametrize("name", AVERAGING)
def test_showing_the_averaged_weights_changes_nothing_of_the_training(name: str) -> None:
    plain, shown = toy_of(name), toy_of(name)
    plain.steps(WHOLE)
    for _ in range(WHOLE):
        shown.steps(1)
        trained = [p.detach().clone() for p in shown.weights]
        with optimizers.averaged(shown.optimizer):
            assert not any(group["train_mode"] for group in shown.optimizer.param_groups)
        assert all(torch.equal(a, b) for a, b in zip(trained, shown.weights, strict=True))
    assert_same(plain, shown)


@pytest.mark.parametrize("name", AVERAGING)
def test_the_averaged_weights_are_other_than_the_trained_ones(name: str) -> None:
    toy = toy_of(name)
    toy.steps(WHOLE)
    assert optimizers.averages(toy.optimizer)
    trained = [p.detach().clone() for p in toy.weights]
    with optimizers.averaged(toy.optimizer):
        assert not all(torch.equal(a, b) for a, b in zip(trained, toy.weights, strict=True))


@pytest.mark.parametrize("name", [needs("AdamWScheduleFree")])
def test_the_averaged_weights_are_the_mean_of_the_paper(name: str) -> None:
    """x is the mean of all z, the weights that plain steps would give (equation 5 of the paper)."""
    toy = Toy(name)
    mean, total = torch.zeros_like(toy.weights[0]), 0
    for _ in range(WHOLE):
        toy.steps(1)
        mean += toy.optimizer.state[toy.weights[0]]["z"]
        total += 1
    with optimizers.averaged(toy.optimizer):
        assert torch.allclose(toy.weights[0], mean / total, atol=1e-6)


def test_other_optimizers_show_what_they_train() -> None:
    toy = Toy("AdamW")
    toy.steps(2)
    before = toy.weights[0].detach().clone()
    with optimizers.averaged(toy.optimizer):
        assert torch.equal(before, toy.weights[0])
