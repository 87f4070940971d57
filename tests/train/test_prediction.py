"""What a base model is taken to predict."""

from __future__ import annotations

from typing import Any

import pytest

from backend.settings import Settings, check
from backend.train.family_rules import asked_prediction


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, None),
        ({"v_parameterization": True}, True),
        ({"prediction_type": "v"}, True),
        ({"prediction_type": "epsilon"}, False),
        ({"prediction_type": "v", "v_parameterization": True}, True),
    ],
)
def test_what_was_asked_for_wins_over_the_file(options: dict[str, Any], wanted: bool | None) -> None:
    assert asked_prediction(Settings.from_flat(options).model) is wanted


def test_both_at_once_are_refused() -> None:
    settings = Settings.from_flat({"v_parameterization": True, "prediction_type": "epsilon"})
    assert "prediction_type" in {problem.key for problem in check(settings, complete=False).errors}
