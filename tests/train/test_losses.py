"""Losses by picture, beside those of others at like noise levels."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.train import losses
from backend.train.losses import LossTable
from backend.train.team import Team
from tests.train.small import Events, draw_pictures, run_small, settings_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "1_sks dog", count=3).parent


@pytest.fixture
def plan(folder: Path) -> DatasetPlan:
    return build_plan(settings_of(folder), verify=False)


def ids(plan: DatasetPlan) -> list[str]:
    return [picture.id for picture in plan.datasets[0].pictures]


def test_a_picture_is_compared_at_its_own_noise_levels(plan: DatasetPlan) -> None:
    """a is twice as hard as the others at every level, but was only seen where losses are low."""
    a, b, c = ids(plan)
    table = LossTable(plan)
    table.add([a, b, c], [0.2, 0.1, 0.1], [900, 910, 949])
    table.add([b, c], [1.0, 1.0], [10, 20])
    found = {row.picture.name: row for row in table.rows()}
    assert found["0.png"].mean < found["1.png"].mean
    assert found["0.png"].relative == pytest.approx(0.2 / (0.4 / 3))
    assert found["1.png"].relative == found["2.png"].relative < 1 < found["0.png"].relative
    assert [row.visits for row in table.rows()] == [1, 2, 2]


def test_the_weight_of_a_picture_is_taken_out(plan: DatasetPlan) -> None:
    first, *rest = plan.datasets[0].pictures
    weighed = replace(plan.datasets[0], pictures=(replace(first, loss_weight=0.5), *rest))
    table = LossTable(DatasetPlan((weighed,)))
    table.add([first.id, rest[0].id], [0.1, 0.2], [5, 5])
    assert [row.relative for row in table.rows()] == [1.0, 1.0]


def test_pictures_that_were_never_seen_are_left_out(plan: DatasetPlan) -> None:
    table = LossTable(plan)
    assert table.rows() == [] and table.text().count("\n") == 1


def test_a_run_leaves_a_table_that_agrees_with_its_steps(folder: Path, tmp_path: Path) -> None:
    done = run_small(folder, tmp_path, max_train_steps=8, train_batch_size=1, min_snr_gamma=5.0)
    events = Events()
    facts = losses.tell(done.session.meter.table, tmp_path, events)
    with (tmp_path / facts["losses"]).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["visits"]) for row in rows) == 8 and {row["picture"] for row in rows} == {
        "0.png", "1.png", "2.png",
    }  # fmt: skip
    total = sum(float(row["mean_loss"]) * int(row["visits"]) for row in rows)
    assert total == pytest.approx(sum(record["loss"] for record in done.events.of("step")), abs=1e-4)
    relative = [float(row["relative_loss"]) for row in rows]
    assert relative == sorted(relative, reverse=True)


def test_hard_pictures_are_named_when_they_were_seen_often(plan: DatasetPlan, tmp_path: Path) -> None:
    a, b, c = ids(plan)
    table, events = LossTable(plan), Events()
    for _ in range(losses.FEW_VISITS - 1):
        table.add([a, b, c], [0.3, 0.1, 0.1], [500, 500, 500])
    assert losses.tell(table, tmp_path, events)["hardest"] == [] and not events.records
    table.add([a, b, c], [0.3, 0.1, 0.1], [500, 500, 500])
    assert losses.tell(table, tmp_path, events)["hardest"] == ["0.png (1.80)"]
    assert "0.png (1.80)" in events.of("note")[0]["text"]


def test_a_table_that_cannot_be_written_is_a_warning(plan: DatasetPlan, tmp_path: Path) -> None:
    events = Events()
    assert losses.tell(LossTable(plan), tmp_path / "gone", events) == {}
    assert losses.FILE in events.of("warning")[0]["text"]


class Pair(Team):
    """One of two processes that are told what the other one has."""

    size = 2

    def __init__(self, rank: int, others: list[Any]) -> None:
        self.rank, self._others = rank, others

    def gather(self, value: Any) -> list[Any]:
        return [value, *self._others] if self.main else [*self._others, value]


def test_the_main_process_knows_what_the_others_counted_and_nothing_twice(plan: DatasetPlan) -> None:
    a, b, _ = ids(plan)
    here, there = LossTable(plan), LossTable(plan)
    here.add([a], [0.2], [900])
    there.add([b], [0.4], [900])
    before = [(table.state()["counts"].numpy(), table.state()["sums"].numpy()) for table in (here, there)]
    here.collect(Pair(0, [before[1]]))
    there.collect(Pair(1, [before[0]]))
    assert {row.picture.name: row.mean for row in here.rows()} == {
        "0.png": pytest.approx(0.2),
        "1.png": pytest.approx(0.4),
    }
    assert there.rows() == []


def test_what_is_known_of_pictures_that_stayed_is_kept(plan: DatasetPlan, folder: Path) -> None:
    a, b, c = ids(plan)
    table, fewer = LossTable(plan), LossTable(plan)
    table.add([a, b, c], [0.2, 0.3, 0.4], [900, 900, 900])
    state = table.state()
    gone = {
        "pictures": [c, "gone", a],
        "counts": state["counts"][[2, 1, 0]],
        "sums": state["sums"][[2, 1, 0]],
    }
    fewer.load(gone)
    assert {row.picture.name: row.mean for row in fewer.rows()} == {
        "0.png": pytest.approx(0.2),
        "2.png": pytest.approx(0.4),
    }
