"""The running mean of the weights: its formula, what uses it, and that resume keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from backend.errors import InputError
from backend.train.ema import Ema
from backend.train.loop import train
from tests.train.small import Trained, draw_pictures, run_small, same, start


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "1_sks dog").parent


def mean_of(value: float, decay: float = 0.9, start: int = 0) -> tuple[Ema, nn.Parameter]:
    parameter = nn.Parameter(torch.tensor([value]))
    return Ema({"w": parameter}, decay, start), parameter


def test_the_mean_follows_the_documented_formula() -> None:
    ema, parameter = mean_of(0.0, decay=0.3)
    expected, rates = 0.0, []
    for n, value in enumerate([1.0, 2.0, 4.0, 8.0, 16.0]):
        parameter.data.fill_(value)
        rates.append(ema.rate())
        ema.update(n + 1)
        rate = min(0.3, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * value
        assert float(ema.means["w"]) == pytest.approx(expected)
    assert rates == [pytest.approx(r) for r in (0.1, 2 / 11, 0.25, 0.3, 0.3)]


def test_until_it_starts_the_mean_is_the_weights() -> None:
    ema, parameter = mean_of(0.0, start=2)
    for step, value in enumerate([5.0, 6.0, 7.0], 1):
        parameter.data.fill_(value)
        ema.update(step)
        if step <= 2:
            assert float(ema.means["w"]) == value
    assert float(ema.means["w"]) == pytest.approx(0.1 * 6.0 + 0.9 * 7.0)


def test_weights_come_back_to_the_bit_also_after_a_fault() -> None:
    ema, parameter = mean_of(0.1)
    parameter.data.fill_(0.7)
    before = parameter.detach().clone()
    with pytest.raises(ZeroDivisionError), ema.applied():
        assert float(parameter.detach()) == pytest.approx(0.1)
        raise ZeroDivisionError
    assert torch.equal(parameter.detach(), before)


def test_weights_of_another_network_are_refused() -> None:
    ema, _ = mean_of(0.1)
    with pytest.raises(InputError, match="do not fit"):
        ema.load({"updates": 3, "means": {"w": torch.zeros(2)}})


def result_of(done: Trained) -> Path:
    return done.run.path / "checkpoints" / "result.safetensors"


def test_results_are_the_means_and_training_goes_on_as_without(pictures: Path, tmp_path: Path) -> None:
    plain, averaged = run_small(pictures, tmp_path), run_small(pictures, tmp_path, ema_decay=0.99)
    assert same(plain.weights, averaged.weights)
    assert same(load_file(result_of(plain)), plain.weights)
    with averaged.session.kept_weights():
        assert same(load_file(result_of(averaged)), averaged.session.method.weights())
    assert not same(load_file(result_of(averaged)), averaged.weights)
    with safe_open(result_of(averaged), "pt") as file:
        assert file.metadata()["atelier.ema_decay"] == "0.99"
    with safe_open(result_of(plain), "pt") as file:
        assert "atelier.ema_decay" not in file.metadata()


def test_measuring_and_sampling_see_the_means(pictures: Path, tmp_path: Path) -> None:
    options = {"validation_split": 0.34, "sample_prompt_text": "sks dog --w 64 --h 64 --s 1 --d 1"}
    options |= {"sample_every_n_steps": 6, "max_train_steps": 6}
    plain = run_small(pictures, tmp_path, **options)
    averaged = run_small(pictures, tmp_path, **options, ema_decay=0.99)
    assert not averaged.events.of("warning")
    losses = [run.events.of("validation")[-1]["loss"] for run in (plain, averaged)]
    files = [run.run.path / run.events.of("sample")[-1]["path"] for run in (plain, averaged)]
    assert losses[0] != losses[1] and files[0].read_bytes() != files[1].read_bytes()


def test_a_resumed_run_has_the_same_means_and_losses_by_picture(pictures: Path, tmp_path: Path) -> None:
    options = {"ema_decay": 0.99, "network_dropout": 0.2}
    straight = run_small(pictures, tmp_path, **options, max_train_steps=6)
    session, position, _, run = start(pictures, tmp_path, **options, max_train_steps=4)
    _, position = train(session, position)
    session.saver.recovery(session, position)
    resumed = run_small(pictures, tmp_path, run=run, **options, max_train_steps=6)
    assert resumed.events.of("step")[0]["step"] == 5
    assert same(straight.weights, resumed.weights)
    one, other = straight.session.ema, resumed.session.ema
    assert one is not None and other is not None and one.updates == other.updates == 6
    assert same(one.means, other.means)
    assert straight.session.meter.table.text() == resumed.session.meter.table.text()
