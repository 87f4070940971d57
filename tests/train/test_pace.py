"""Steps that take many times as long as before are told of, once."""

from __future__ import annotations

import pytest

from backend.train.meter import Meter
from backend.train.pace import Pace, slow
from tests.train.test_meter import Events, meter, step


def warnings(events: Events) -> list[str]:
    return [fields["text"] for type, fields in events.records if type == "warning"]


def usual(pace: Pace, seconds: float = 1.0, count: int = 10) -> Pace:
    for number in range(count):
        pace.look(number + 1, 1, seconds)
    return pace


def test_a_step_five_times_slower_is_told_once_with_a_cause() -> None:
    events = Events()
    pace = usual(Pace(events))
    for number in range(11, 40):
        pace.look(number, 1, 6.0)
    (text,) = warnings(events)
    assert "step 11: a step took 6.0 s, 6 times as long as usual" in text and "disk" in text


def test_it_is_told_again_after_a_while_of_peace_but_not_for_ever() -> None:
    events = Events()
    pace = Pace(events)
    for _ in range(20):
        usual(pace)
        pace.look(11, 1, 9.0)
    assert len(warnings(events)) == 3


@pytest.mark.parametrize(("seconds", "slower"), [(1.0, 4.5), (0.01, 0.5)])
def test_what_is_little_slower_or_costs_little_is_not_told(seconds: float, slower: float) -> None:
    events = Events()
    usual(Pace(events), seconds).look(11, 1, slower)
    assert not warnings(events)


def test_the_first_steps_have_nothing_to_be_compared_with() -> None:
    events = Events()
    usual(Pace(events), count=3).look(4, 1, 60.0)
    assert not warnings(events)


def test_a_full_card_is_named_as_the_cause() -> None:
    assert "card's memory is full" in slow(9, 8.0, 1.0, full=True).why


def test_the_meter_of_a_run_tells_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, events = [100.0], Events()
    monkeypatch.setattr("backend.train.meter.time.perf_counter", lambda: now[0])
    found: Meter = meter(events, steps=12)
    for number in range(1, 13):
        now[0] += 30.0 if number == 10 else 1.0
        found.add(step(number, 0.1))
    assert ["step 10" in text for text in warnings(events)] == [True]
    assert [fields["step"] for type, fields in events.records if type == "step"] == list(range(1, 13))
