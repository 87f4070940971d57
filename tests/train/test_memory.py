"""Memory that runs out in the middle of a training: the run ends in words, and nothing learned is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backend.errors import RunFault
from backend.settings import Settings
from backend.train import several
from backend.train.loop import train
from backend.train.memory import problem_of
from tests.train.small import SmallModel, Trained, draw_pictures, run_small, same, start

CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
MACHINE = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def failing_at(step: int, error: Exception) -> tuple[SmallModel, Callable[[], None]]:
    """A model whose ``step``-th forward pass fails, and what repairs it."""
    model, passes = SmallModel(), [0]
    whole = model.predict

    def predict(*args: object, **kwargs: object) -> Tensor:
        passes[0] += 1
        if passes[0] == step:
            raise error
        return whole(*args, **kwargs)  # type: ignore[arg-type]

    model.predict = predict  # type: ignore[method-assign]
    return model, lambda: setattr(model, "predict", whole)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return run_small(pictures, tmp_path_factory.mktemp("home"))


def test_out_of_memory_at_a_step_saves_and_goes_on_to_the_bit(
    pictures: Path, unbroken: Trained, tmp_path: Path
) -> None:
    model, _ = failing_at(4, CARD)
    session, position, events, run = start(pictures, tmp_path, model=model)
    with pytest.raises(RunFault) as caught:
        train(session, position)
    (problem,) = caught.value.problems
    assert problem.where == "step 4" and problem.what == "out of GPU memory" and "20.00 GiB" in problem.why
    assert "gradient_checkpointing" in problem.next and "train_batch_size" in problem.next
    assert {saved["step"] for saved in events.of("saved")} == {3} and len(events.of("saved")) == 2

    session, position, _, _ = start(pictures, tmp_path, run=run)
    assert position.step == 3
    train(session, position)
    assert same(session.method.weights(), unbroken.weights)


def test_nothing_is_saved_before_the_first_step(pictures: Path, tmp_path: Path) -> None:
    session, position, events, _ = start(pictures, tmp_path, model=failing_at(1, MACHINE)[0])
    with pytest.raises(RunFault, match=r"out of memory \(RAM\)"):
        train(session, position)
    assert not events.of("saved")


def test_other_faults_of_a_step_are_not_taken_for_it(pictures: Path, tmp_path: Path) -> None:
    session, position, _, _ = start(pictures, tmp_path, model=failing_at(2, RuntimeError("a bug"))[0])
    with pytest.raises(RuntimeError, match="a bug"):
        train(session, position)


def test_what_is_on_already_is_not_suggested() -> None:
    cheap = Settings().replace(gradient_checkpointing=True, cache_latents=True, mixed_precision="bf16")
    told = problem_of(CARD, cheap.replace(optimizer_type="AdaFactor")).next
    assert "gradient_checkpointing" not in told and "resolution" in told
    assert "AdamW8bit" in problem_of(CARD, cheap).next


def test_a_run_tells_memory_and_the_system_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert several.told(CARD).problems[0].what == "out of GPU memory"
    refused = several.told(PermissionError(13, "Permission denied", "/somewhere"))
    assert refused.exit_code == 3 and "/somewhere" in refused.text() and "permission denied" in refused.text()
    lost = several.told(RuntimeError("CUDA error: unspecified launch failure\nmore"))
    assert lost.exit_code == 4 and "graphics card" in lost.text() and "more" not in lost.text()
    assert not capsys.readouterr().err
    assert several.told(KeyError("bug")).exit_code == 4
    assert "KeyError" in capsys.readouterr().err
