"""Steps become events; a loss that is no number ends the run and says where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.data.types import Dataset, DatasetPlan, Geometry, Picture, Subset
from backend.errors import RunFault
from backend.settings.length import Length
from backend.train.losses import LossTable
from backend.train.meter import SKIPS_ALLOWED, Losses, Meter, StepRecord


class Events:
    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    def emit(self, type: str, /, **fields: Any) -> None:
        self.records.append((type, fields))


def picture(name: str) -> Picture:
    whole = Geometry((64, 64), (64, 64), (64, 64), (0, 0))
    return Picture(f"0/{name}", Path(name), Subset(Path()), "", None, whole, 1)


PICTURES = (picture("a.png"), picture("b.png"))
PLAN = DatasetPlan((Dataset((64, 64), 2, PICTURES, False, 64, 64, 64, False, ()),))


def step(number: int, loss: float, norm: float = 0.5) -> StepRecord:
    each = Losses(torch.full((2,), loss), torch.tensor([10, 990]))
    return StepRecord(number, 1, torch.tensor(loss), torch.tensor(norm), {"unet": 1e-4}, PICTURES, each)


def meter(events: Events, steps: int = 4, scaled: bool = False) -> Meter:
    return Meter(events, Length(steps, 1, 2, 2, 1), 2, LossTable(PLAN), scaled=scaled)


def test_every_step_is_recorded_by_the_last_one() -> None:
    events = Events()
    found = meter(events)
    for number in range(1, 5):
        found.add(step(number, number / 10))
    assert [fields["step"] for _, fields in events.records] == [1, 2, 3, 4]
    assert [fields["loss"] for _, fields in events.records] == [0.1, 0.2, 0.3, 0.4]
    assert events.records[-1][1]["average"] == pytest.approx(0.35)
    assert events.records[0][1]["lr"] == {"unet": 1e-4}


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 0.5), (math.inf, 0.5), (0.5, math.nan)])
def test_a_loss_that_is_no_number_names_step_pictures_and_rate(loss: float, norm: float) -> None:
    found = meter(Events())
    found.add(step(1, 0.1))
    with pytest.raises(RunFault) as fault:
        found.add(step(2, loss, norm))
        found.flush()
    text = fault.value.text()
    for word in ("step 2", "a.png", "0.0001", "lower learning rate"):
        assert word in text


def test_pauses_do_not_count_as_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("backend.train.meter.time.perf_counter", lambda: now[0])
    events = Events()
    found = meter(events)
    with found.pause():
        now[0] += 60.0
    now[0] += 1.0
    found.add(step(1, 0.1))
    assert events.records[0][1]["seconds"] == pytest.approx(1.0)
    assert events.records[0][1]["images_per_second"] == pytest.approx(2.0)


def test_a_gradient_scaler_may_leave_out_some_steps_and_not_all() -> None:
    found = meter(Events(), steps=100, scaled=True)
    for number in range(1, SKIPS_ALLOWED + 1):
        found.add(step(number, 0.1, math.inf))
    found.add(step(SKIPS_ALLOWED + 1, 0.1, 0.5))
    found.flush()
    with pytest.raises(RunFault, match="not a number"):
        for number in range(SKIPS_ALLOWED + 1):
            found.add(step(30 + number, 0.1, math.inf))
        found.flush()


def test_losses_of_pictures_reach_the_table_in_one_copy_for_all_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies: list[int] = []
    copy = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (copies.append(self.numel()), copy(self))[1])
    found = meter(Events(), steps=100)
    for number in range(1, 4):
        found.add(step(number, number / 10))
    found.flush()
    assert copies == [3 * (2 + 2 * 2)]
    assert [(row.visits, row.mean) for row in found.table.rows()] == [(3, pytest.approx(0.2))] * 2
