"""Schedules against torch-style references computed step by step."""

from __future__ import annotations

import math

import pytest

from backend.train.schedules import Schedule, warmup_steps


def test_warmup_rises_from_zero_for_every_schedule_that_has_one() -> None:
    for name in ("constant_with_warmup", "linear", "cosine", "cosine_with_restarts"):
        schedule = Schedule(name, total=100, warmup=10)
        assert schedule.factor(0) == 0.0
        assert schedule.factor(5) == pytest.approx(0.5)
        assert schedule.factor(10) == pytest.approx(1.0)


def test_constant_ignores_warmup() -> None:
    assert Schedule("constant", total=10, warmup=5).factor(0) == 1.0


def test_linear_reaches_zero_at_the_end() -> None:
    schedule = Schedule("linear", total=20)
    assert [schedule.factor(step) for step in (0, 10, 20)] == pytest.approx([1.0, 0.5, 0.0])


def test_cosine_is_half_at_the_middle() -> None:
    schedule = Schedule("cosine", total=100, warmup=20)
    assert schedule.factor(60) == pytest.approx(0.5)
    assert schedule.factor(40) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.25)))


def test_restarts_start_again_at_one() -> None:
    schedule = Schedule("cosine_with_restarts", total=90, cycles=3)
    assert [schedule.factor(step) for step in (0, 30, 60)] == pytest.approx([1.0, 1.0, 1.0])
    assert schedule.factor(29) < 0.01
    assert schedule.factor(90) == 0.0


@pytest.mark.parametrize(("value", "steps"), [(0, 0), (0.1, 20), (15, 15), (0.999, 199)])
def test_warmup_is_a_share_below_one(value: float, steps: int) -> None:
    assert warmup_steps(value, 200) == steps
