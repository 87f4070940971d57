"""Measuring on pictures held out: always the same way, and without a trace in the training."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.data.loader import Loader
from backend.train.checkpoints import Position
from backend.train.noise import NoiseRules
from backend.train.tracking import numbers_of
from backend.train.validation import Validator, levels_of
from tests.train.small import draw_pictures, run_small, same, start

HELD = {"validation_split": 0.34}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "1_sks dog").parent


def test_training_is_the_same_to_the_bit_with_and_without_measuring(pictures: Path, tmp_path: Path) -> None:
    options = {**HELD, "network_dropout": 0.3, "cache_latents": True, "noise_offset": 0.1}
    seldom = run_small(pictures, tmp_path, **options, validate_every_n_epochs=100)
    often = run_small(pictures, tmp_path, **options, validate_every_n_steps=1)
    assert len(seldom.events.of("validation")) == 1 and len(often.events.of("validation")) == 6
    assert same(seldom.weights, often.weights)
    losses = [[record["loss"] for record in run.events.of("step")] for run in (seldom, often)]
    assert losses[0] == losses[1]


def test_the_yardstick_depends_on_the_weights_alone(pictures: Path, tmp_path: Path) -> None:
    frozen = [
        run_small(pictures, tmp_path, **HELD, seed=seed, learning_rate=1e-12, validate_every_n_steps=2)
        for seed in (1, 2)
    ]
    losses = [record["loss"] for run in frozen for record in run.events.of("validation")]
    assert len(losses) == 6 and len(set(losses)) == 1
    other = run_small(pictures, tmp_path, **HELD, learning_rate=1e-12, validation_seed=5)
    assert other.events.of("validation")[0]["loss"] != losses[0]


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_learnt_shows_and_is_the_mean_of_the_levels(
    pictures: Path, tmp_path: Path, cached: bool
) -> None:
    done = run_small(
        pictures, tmp_path, **HELD, max_train_steps=40, validate_every_n_steps=20, cache_latents=cached,
        cache_text_encoder_outputs=cached,
    )  # fmt: skip
    first, last = done.events.of("validation")[0], done.events.of("validation")[-1]
    assert last["loss"] < first["loss"] and last["step"] == 40 and last["pictures"] == 2
    assert list(last["levels"]) == ["200", "400", "600", "800"]
    assert last["loss"] == pytest.approx(sum(last["levels"].values()) / 4, abs=1e-5)
    assert last["divergence"] == pytest.approx(last["loss"] - done.session.meter.average, abs=1e-5)
    assert done.session.result_facts(done.position)["validation_loss"] == last["loss"]


def test_a_batch_limit_measures_the_first_batches_only(pictures: Path, tmp_path: Path) -> None:
    done = run_small(pictures, tmp_path, validation_split=0.5, train_batch_size=1, max_validation_steps=2)
    assert {record["pictures"] for record in done.events.of("validation")} == {2}


@pytest.mark.parametrize(
    ("steps", "epochs", "moments"),
    [
        (None, None, [("epoch", 2), ("epoch", 4), ("epoch", 6)]),
        (None, 2, [("epoch", 4), ("step", 6)]),
        (3, None, [("epoch", 2), ("step", 3), ("epoch", 4), ("step", 6)]),
    ],
)
def test_when_it_is_measured(
    pictures: Path, tmp_path: Path, steps: int | None, epochs: int | None, moments: list[tuple[str, int]]
) -> None:
    """Two batches an epoch; never one step twice, and always at the end."""
    options = {"validate_every_n_steps": steps, "validate_every_n_epochs": epochs}
    done = run_small(pictures, tmp_path, **HELD, **options)
    assert [(record["when"], record["step"]) for record in done.events.of("validation")] == moments


def test_without_pictures_held_out_nothing_is_measured(pictures: Path, tmp_path: Path) -> None:
    done = run_small(pictures, tmp_path, validate_every_n_steps=1)
    assert done.session.validator is None and not done.events.of("validation")


def test_a_picture_that_is_gone_is_a_warning(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "pictures" / "1_sks dog")
    session, _, events, _ = start(folder.parent, tmp_path, **HELD)
    assert session.validator is not None
    for dataset in session.validator.loader.plan.datasets:
        for picture in dataset.pictures:
            picture.path.unlink()
    session.validator.measure(session, Position(step=3))
    (warning,) = events.of("warning")
    assert "step 3" in warning["text"] and "no longer there" in warning["text"]
    assert session.method.trainable.training


def test_a_stop_is_not_kept_waiting(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, position, events, _ = start(pictures, tmp_path, **HELD)
    monkeypatch.setattr(type(session.control), "stop_waits", lambda self: True)
    monkeypatch.setattr(Validator, "_batch", lambda *_: pytest.fail("measured although a stop waits"))
    assert session.validator is not None
    session.validator.measure(session, position)
    assert not events.of("validation") and not events.of("warning")


@pytest.mark.parametrize(
    ("bounds", "levels"),
    [((0, 1000), [200, 400, 600, 800]), ((100, 200), [120, 140, 160, 180]), ((500, 500), [500])],
)
def test_levels_lie_evenly_inside_the_bounds(bounds: tuple[int, int], levels: list[int]) -> None:
    assert levels_of(NoiseRules(0, min_timestep=bounds[0], max_timestep=bounds[1])) == levels


def test_tags_of_the_logs_are_those_of_sd_scripts() -> None:
    fields = {"when": "epoch", "loss": 0.2, "divergence": 0.05, "step": 4}
    tag = "loss/validation/epoch"
    assert numbers_of("validation", fields) == {f"{tag}_average": 0.2, f"{tag}_divergence": 0.05}
    assert numbers_of("note", {"text": "x"}) == {}


def test_pictures_are_measured_in_an_order_that_never_changes(pictures: Path, tmp_path: Path) -> None:
    orders = []
    for seed in (1, 2):
        session, *_ = start(pictures, tmp_path, validation_split=0.5, seed=seed)
        assert session.validator is not None
        loader: Loader = session.validator.loader
        orders.append([picture.id for batch in loader.epoch(1) for picture in batch.pictures])
    assert orders[0] == orders[1]
