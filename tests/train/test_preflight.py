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


def found(pictures: Path, **options: Any) -> dict[str | None, str]:
    """Key of each problem -> its text."""
    with pytest.raises(InputError) as caught:
        prepare(settings_of(pictures, **options))
    return {problem.key: problem.text() for problem in caught.value.problems}


def test_results_among_pictures_of_a_dataset_file_are_refused(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 2)
    config = tmp_path / "set.toml"
    config.write_text(f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{pictures.as_posix()}"\n')
    (tmp_path / "link").symlink_to(pictures)
    for folder, word in (
        (pictures, "is the picture folder"),
        (tmp_path, "contains"),
        (tmp_path / "link", "is"),
    ):
        told = found(pictures, dataset_config=str(config), output_dir=str(folder))
        assert word in told["output_dir"] and str(pictures.resolve()) in told["output_dir"]


def test_start_weights_that_are_a_model_are_told_among_all(tmp_path: Path, tiny_sd15: Path) -> None:
    pictures = draw_pictures(tmp_path / "1_sks dog", 2).parent
    told = found(
        pictures,
        pretrained_model_name_or_path=str(tiny_sd15),
        network_weights=str(tiny_sd15),
        output_name="n" * 250,
    )
    assert "this is SD 1.5, not a LoRA" in told["network_weights"]
    assert "too long" in told["output_name"], "before a run is made, and not when it is saved"
