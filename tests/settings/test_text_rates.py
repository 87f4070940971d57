"""A learning rate for each text encoder, in all the ways people write it."""

from __future__ import annotations

import pytest

from backend.errors import InputError
from backend.settings import Settings, check, parse_command_line
from backend.train.methods.network import learning_rates

PARTS = ["te1", "te2"]


def rates(*words: str) -> dict[str, float]:
    command = parse_command_line([*words, "--learning_rate", "1e-4"], prog="p", complete=False)
    return learning_rates(command.settings, PARTS)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], (1e-4, 1e-4)),
        (["--text_encoder_lr", "5e-5"], (5e-5, 5e-5)),
        (["--text_encoder_lr", "5e-5", "5e-5"], (5e-5, 5e-5)),
        (["--text_encoder_lr", "5e-5", "1e-5"], (5e-5, 1e-5)),
        (["--text_encoder_lr1=5e-5", "--text_encoder_lr2=0"], (5e-5, 0.0)),
        (["--text_encoder_lr=2e-5", "--text_encoder_lr2=1e-5"], (2e-5, 1e-5)),
        (["--learning_rate_te1=5e-5", "--learning_rate_te2", "1e-6"], (5e-5, 1e-6)),
        (["--text_encoder_lr1=5e-5", "--network_train_unet_only"], (0.0, 0.0)),
    ],
)
def test_rates_of_two_text_encoders(words: list[str], wanted: tuple[float, float]) -> None:
    assert rates(*words) == {"unet": 1e-4, "te1": wanted[0], "te2": wanted[1]}


def test_a_toml_list() -> None:
    settings = Settings.from_flat({"text_encoder_lr": [1e-5, 2e-5, 0]})
    section = settings.optimizer
    assert (section.text_encoder_lr1, section.text_encoder_lr2, section.text_encoder_lr3) == (1e-5, 2e-5, 0)
    assert section.text_encoder_lr is None
    assert learning_rates(Settings.from_flat({"text_encoder_lr": 1e-5}), ["te"])["te"] == 1e-5


def test_four_rates_are_too_many() -> None:
    with pytest.raises(InputError, match="text_encoder_lr"):
        Settings.from_flat({"text_encoder_lr": [1e-5, 2e-5, 0, 1]})


def test_one_encoder_alone_is_something_to_train() -> None:
    base = {"unet_lr": 0, "text_encoder_lr": 0, "pretrained_model_name_or_path": "m", "train_data_dir": "d"}
    found = [problem.key for problem in check(Settings.from_flat(base)).errors]
    assert "learning_rate" in found
    found = [problem.key for problem in check(Settings.from_flat({**base, "text_encoder_lr2": 1e-5})).errors]
    assert "learning_rate" not in found
