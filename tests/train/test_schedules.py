"""Schedules against those of transformers and diffusers, and against torch's own classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.errors import InputError
from backend.settings.schedules import NAMES
from backend.settings.sections import ScheduleSettings
from backend.train.schedule_class import ClassSchedule
from backend.train.schedules import Schedule, read_pieces, schedule_of, whole_steps

TOTAL, PEAK = 200, 1e-3
OURS = ("rex", "adafactor")


def oracle(make: Callable[[torch.optim.Optimizer], Any], steps: int = TOTAL) -> list[float]:
    """The factors of a scheduler class or function, stepped one by one."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer)
    found: list[float] = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / PEAK)
        optimizer.step()
        scheduler.step()
    return found


def theirs(name: str, warmup: int, **options: Any) -> list[float]:
    """A schedule as sd-scripts asks transformers (or diffusers) for it."""
    from diffusers.optimization import get_piecewise_constant_schedule
    from transformers import optimization as t

    makers: dict[str, Callable[[Any], Any]] = {
        "constant": t.get_constant_schedule,
        "constant_with_warmup": lambda o: t.get_constant_schedule_with_warmup(o, warmup),
        "linear": lambda o: t.get_linear_schedule_with_warmup(o, warmup, TOTAL),
        "cosine": lambda o: t.get_cosine_schedule_with_warmup(o, warmup, TOTAL),
        "cosine_with_restarts": lambda o: t.get_cosine_with_hard_restarts_schedule_with_warmup(
            o, warmup, TOTAL, num_cycles=options["cycles"]
        ),
        "polynomial": lambda o: t.get_polynomial_decay_schedule_with_warmup(
            o, warmup, TOTAL, power=options["power"], **options.get("arguments", {})
        ),
        "inverse_sqrt": lambda o: t.get_inverse_sqrt_schedule(o, warmup, timescale=options["timescale"]),
        "cosine_with_min_lr": lambda o: t.get_cosine_with_min_lr_schedule_with_warmup(
            o, warmup, TOTAL, num_cycles=options["cycles"] / 2,
            min_lr_rate=options.get("min_ratio"), **options.get("arguments", {}),
        ),
        "warmup_stable_decay": lambda o: t.get_wsd_schedule(
            o, warmup, num_stable_steps=TOTAL - warmup - options["decay"], num_decay_steps=options["decay"],
            num_cycles=options["cycles"] / 2, min_lr_ratio=options["min_ratio"], **options.get("arguments", {}),
        ),
        "piecewise_constant": lambda o: get_piecewise_constant_schedule(o, **options["arguments"]),
    }  # fmt: skip
    return oracle(makers[name])


CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("constant", 0, {}),
    ("constant_with_warmup", 20, {}),
    ("constant_with_warmup", 0, {}),
    ("linear", 0, {}),
    ("linear", 30, {}),
    ("cosine", 0, {}),
    ("cosine", 25, {}),
    ("cosine_with_restarts", 10, {"cycles": 3}),
    ("cosine_with_restarts", 0, {"cycles": 1}),
    ("polynomial", 15, {"power": 2.0}),
    ("polynomial", 0, {"power": 0.5, "arguments": {"lr_end": 2e-4}}),
    ("inverse_sqrt", 40, {"timescale": None}),
    ("inverse_sqrt", 0, {"timescale": None}),
    ("inverse_sqrt", 10, {"timescale": 70}),
    ("cosine_with_min_lr", 20, {"cycles": 1, "min_ratio": 0.1}),
    ("cosine_with_min_lr", 0, {"cycles": 3, "min_ratio": 0.0}),
    ("cosine_with_min_lr", 0, {"cycles": 1, "arguments": {"min_lr": 2e-4}}),
    ("warmup_stable_decay", 20, {"cycles": 1, "decay": 50, "min_ratio": 0.05}),
    ("warmup_stable_decay", 0, {"cycles": 2, "decay": 0, "min_ratio": 0.0}),
    (
        "warmup_stable_decay",
        30,
        {
            "cycles": 1,
            "decay": 60,
            "min_ratio": 0.1,
            "arguments": {"warmup_type": "cosine", "decay_type": "1-sqrt"},
        },
    ),
    (
        "warmup_stable_decay",
        30,
        {
            "cycles": 1,
            "decay": 60,
            "min_ratio": 0.0,
            "arguments": {"warmup_type": "1-sqrt", "decay_type": "linear"},
        },
    ),
    ("piecewise_constant", 0, {"arguments": {"step_rules": "1:50,0.1:120,0.01"}}),
]


@pytest.mark.parametrize(("name", "warmup", "options"), CASES, ids=lambda value: str(value)[:24])
def test_every_step_is_that_of_transformers_or_diffusers(
    name: str, warmup: int, options: dict[str, Any]
) -> None:
    schedule = Schedule(name, TOTAL, warmup, peak=PEAK, **options)
    found = [schedule.factor(step) for step in range(TOTAL)]
    assert found == pytest.approx(theirs(name, warmup, **options), abs=1e-9)


def test_all_schedules_but_our_own_are_compared() -> None:
    assert {case[0] for case in CASES} | set(OURS) == set(NAMES)


def test_rex_is_the_papers_formula_after_a_warm_up() -> None:
    schedule = Schedule("rex", TOTAL, warmup=40)
    assert schedule.factor(20) == pytest.approx(0.5)
    for step in (40, 80, 120, 199, 200):
        share = (step - 40) / 160
        assert schedule.factor(step) == pytest.approx((1 - share) / (0.5 + 0.5 * (1 - share)))
    assert schedule.factor(40) == 1.0 and schedule.factor(200) == 0.0


def test_a_schedule_is_a_function_of_the_step_alone() -> None:
    schedule = Schedule("cosine", TOTAL, 20)
    later = [schedule.factor(step) for step in (150, 3, 77)]
    assert later == [Schedule("cosine", TOTAL, 20).factor(step) for step in (150, 3, 77)]


def test_rates_of_groups_keep_their_proportion() -> None:
    groups: list[dict[str, Any]] = [{"lr": 0.0}, {"lr": 0.0}]
    Schedule("cosine", 100, 20).apply(groups, (1e-4, 5e-5), 60)
    assert [group["lr"] for group in groups] == pytest.approx([0.5e-4, 0.25e-4])


def test_warmup_belongs_only_to_schedules_that_have_one() -> None:
    assert Schedule("constant", 10, warmup=5).factor(0) == 1.0
    assert Schedule("constant_with_warmup", 10, warmup=5).factor(0) == 0.0


@pytest.mark.parametrize(("value", "steps"), [(0, 0), (0.1, 20), (15, 15), (0.999, 199)])
def test_steps_are_a_share_below_one(value: float, steps: int) -> None:
    assert whole_steps(value, 200) == steps


def settings(**values: Any) -> ScheduleSettings:
    return ScheduleSettings(**values)


def test_settings_make_the_schedule() -> None:
    schedule = schedule_of(
        settings(lr_scheduler="warmup_stable_decay", lr_warmup_steps="10%", lr_decay_steps=0.25,
            lr_scheduler_min_lr_ratio=0.2, lr_scheduler_args=("decay_type=linear",)),
        400, PEAK,
    )  # fmt: skip
    assert (schedule.warmup, schedule.decay) == (40, 100)
    assert schedule.factor(350) == pytest.approx(0.6)
    assert schedule.factor(500) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 60, "lr_decay_steps": 50},
            "longer than the run",
        ),
        (
            {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 10, "lr_scheduler_args": ("decay_type=log",)},
            "does not accept its arguments",
        ),
        ({"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules=1:a,2",)}, "does not accept"),
        ({"lr_scheduler": "piecewise_constant", "lr_scheduler_args": ("step_rules=1,2:3",)}, "does not accept"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_told_before_the_first_step(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        schedule_of(settings(**values), 100, PEAK)


def test_pieces_are_read_in_any_order() -> None:
    assert read_pieces("0.1:20,1:10,0.5") == ([(10, 1.0), (20, 0.1)], 0.5)


def stand_in(*rates: float) -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in rates]
    return torch.optim.AdamW(
        [{"params": [p], "lr": rate, "name": "x"} for p, rate in zip(parameters, rates, strict=True)]
    )


CLASSES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("CosineAnnealingLR", [], {"T_max": TOTAL}),
    ("CosineAnnealingLR", ["T_max=30", "eta_min=1e-5"], {"T_max": 30, "eta_min": 1e-5}),
    ("CosineAnnealingWarmRestarts", ["T_0=25", "T_mult=2"], {"T_0": 25, "T_mult": 2}),
    ("ExponentialLR", ["gamma=0.99"], {"gamma": 0.99}),
    ("MultiStepLR", ["milestones=[40,90]", "gamma=.3"], {"milestones": [40, 90], "gamma": 0.3}),
    ("torch.optim.lr_scheduler.StepLR", ["step_size=33"], {"step_size": 33}),
    ("OneCycleLR", [], {"total_steps": TOTAL, "max_lr": [PEAK, PEAK / 2]}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), CLASSES, ids=lambda value: str(value)[:30])
def test_a_class_gives_what_it_gives_by_itself_and_the_same_after_a_resume(
    name: str, arguments: list[str], options: dict[str, Any]
) -> None:
    section = settings(lr_scheduler_type=name, lr_scheduler_args=tuple(arguments))
    rates = (PEAK, PEAK / 2)
    reference, ours = stand_in(*rates), stand_in(*rates)
    theirs = getattr(torch.optim.lr_scheduler, name.rpartition(".")[2])(reference, **options)
    schedule = ClassSchedule(section, TOTAL, ours, rates)
    kept: dict[int, list[Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(TOTAL - 1):
            schedule.apply(ours.param_groups, rates, step)
            for key in ("lr", "betas"):
                assert [g[key] for g in ours.param_groups] == [g[key] for g in reference.param_groups], step
            kept[step] = [(g["lr"], g["betas"]) for g in ours.param_groups]
            reference.step()
            theirs.step()
    resumed = stand_in(*rates)
    resumed.load_state_dict(ours.state_dict())  # as a restore point does
    later = ClassSchedule(section, TOTAL, resumed, rates)
    for step in (120, 50):  # a resume, and a look back
        later.apply(resumed.param_groups, rates, step)
        assert [(g["lr"], g["betas"]) for g in resumed.param_groups] == kept[step]
    assert math.isfinite(resumed.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr_scheduler_type": "CosineAnnealingWarmRestarts"}, "T_0"),
        ({"lr_scheduler_type": "no_such_module.Schedule"}, "cannot be imported"),
        ({"lr_scheduler_type": "torch.optim.lr_scheduler.NoSuch"}, "has no schedule NoSuch"),
        ({"lr_scheduler_type": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, "cannot be used"),
    ],
)
def test_a_class_that_cannot_be_used_says_why(values: dict[str, Any], said: str) -> None:
    with pytest.raises((InputError, ValueError), match=said):
        ClassSchedule(settings(**values), TOTAL, stand_in(PEAK), (PEAK,))
