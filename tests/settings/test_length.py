"""Steps and epochs of a run."""

from __future__ import annotations

import pytest

from backend.settings import Settings
from backend.settings.length import run_length


@pytest.mark.parametrize(
    ("values", "batches", "steps", "epochs"),
    [
        ({"max_train_steps": 10}, 4, 10, 3),
        ({"max_train_epochs": 3}, 4, 12, 3),
        ({"max_train_epochs": 2, "gradient_accumulation_steps": 3}, 4, 4, 2),
        ({"max_train_steps": 7, "gradient_accumulation_steps": 2}, 3, 7, 4),
    ],
)
def test_run_length(values: dict[str, int], batches: int, steps: int, epochs: int) -> None:
    length = run_length(Settings.from_flat(values), batches)
    assert (length.steps, length.epochs) == (steps, epochs)
