"""What is found before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError
from backend.train.preflight import prepare
from tests.train.small import draw_pictures, settings_of


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("lr_scheduler_type", "nowhere_at_all.Schedule", "cannot be imported"),
        ("lr_scheduler_type", "torch.optim.swa_utils.SWALR2", "has no schedule SWALR2"),
        ("optimizer_type", "torch.optim.adamw.AdamX", "has no AdamX"),
    ],
)
def test_classes_that_are_not_there_are_told_before_a_model_is_looked_for(
    tmp_path: Path, option: str, value: str, word: str
) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InputError) as caught:
        prepare(settings_of(draw_pictures(tmp_path / "1_sks dog", 2).parent, **options))
    found = {problem.key: problem for problem in caught.value.problems}
    assert word in found[option].why
    assert "pretrained_model_name_or_path" in found, "all is told in one list"
