"""What is trained decides which options are taken, and which script it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import InputError
from backend.settings import Settings, check, declarations, parse_command_line
from backend.settings.methods import METHODS, tool_of


def test_every_method_is_offered_and_every_mention_is_of_one() -> None:
    assert declarations()["training_method"].choices == tuple(METHODS)
    assert all(set(one.methods) <= METHODS.keys() for one in declarations().values())


def test_an_option_of_another_method_is_refused_with_the_reason() -> None:
    verdict = check(Settings.from_flat({"training_method": "dreambooth", "network_dim": 8}), complete=False)
    problem = next(one for one in verdict.errors if one.key == "network_dim")
    assert "no use where the whole model (DreamBooth) is trained" in problem.what
    assert "a network" in problem.why and "leave network_dim out" in problem.next
    assert not check(Settings.from_flat({"network_dim": 8}), complete=False).errors


def test_cached_text_needs_text_encoders_that_are_not_trained() -> None:
    cached = {"training_method": "dreambooth", "cache_text_encoder_outputs": True}
    errors = check(Settings.from_flat(cached), complete=False).errors
    assert [error.key for error in errors] == ["cache_text_encoder_outputs"]
    for more in ({"stop_text_encoder_training": 0}, {"training_method": "finetune"}):
        verdict = check(Settings.from_flat({**cached, **more}), complete=False)
        assert not verdict.errors and not verdict.settings.network.network_train_unet_only


def test_a_script_trains_by_its_own_method(tmp_path: Path) -> None:
    command = parse_command_line([], prog="train_db.py", complete=False, method="dreambooth")
    assert command.settings.model.training_method == "dreambooth"
    file = tmp_path / "run.toml"
    file.write_text('[model]\ntraining_method = "finetune"\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        parse_command_line(["--config_file", str(file)], "train_db.py", complete=False, method="dreambooth")
    (problem,) = caught.value.problems
    assert "train_db.py trains the whole model (DreamBooth)" in problem.what
    assert problem.where.endswith("line 2") and "tools/fine_tune.py" in problem.next


def test_the_script_goes_by_the_family() -> None:
    assert tool_of("finetune") == "fine_tune.py" and tool_of("finetune", "sdxl") == "sdxl_train.py"
    assert tool_of("network", "sdxl") == "train_network.py"
