"""The declarations themselves, and the one trip each option makes through every form it has."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.settings import (
    Settings,
    declarations,
    parse_command_line,
    read_toml,
    schema,
    to_command_line,
    write_toml,
)
from backend.settings.convert import convert, plain
from backend.settings.declare import Declared

from .conftest import companions, other_value

OPTIONS = [one for one in declarations().values() if one.key != "network_args"]
"""``network_args`` never keeps a value: its items move into their own options."""


CHANGEABLE = [one for one in OPTIONS if len(one.choices) != 1 and not one.info.secret]
"""Secrets are not written: see ``test_secrets``."""


@pytest.mark.parametrize("declared", CHANGEABLE, ids=lambda one: one.key)
def test_a_value_survives_every_way_of_writing_it(declared: Declared, tmp_path: Path) -> None:
    value = other_value(declared)
    wanted = {declared.key: value, **companions(declared)}
    settings = Settings.from_flat(wanted)
    assert settings.changed() == wanted
    assert Settings.from_flat(settings.flat()) == settings

    write_toml(settings, tmp_path / "run.toml")
    assert read_toml(tmp_path / "run.toml") == settings

    line = shlex.split(" ".join(to_command_line(settings)))
    assert parse_command_line(line, complete=False).settings == settings
    assert json.loads(json.dumps(settings.flat())) == settings.flat()


@pytest.mark.parametrize("declared", OPTIONS, ids=lambda one: one.key)
def test_defaults_are_allowed_values(declared: Declared) -> None:
    written = plain(declared, declared.default)
    assert convert(declared, written) == declared.default


@pytest.mark.parametrize(
    "declared", [one for one in OPTIONS if one.bounds.low is not None], ids=lambda one: one.key
)
def test_bounds_hold_at_both_ends(declared: Declared) -> None:
    bounds = declared.bounds
    assert (bounds.low is not None and bounds.high is not None) or declared.key in NO_UPPER_BOUND
    below = bounds.low if bounds.low_open else bounds.low - 1
    wrong = [below] if bounds.high is None else [below, bounds.high if bounds.high_open else bounds.high + 1]
    for value in wrong:
        with pytest.raises(ValueError, match="allowed: "):
            convert(declared, int(value) if value == int(value) else value)
    if not bounds.low_open:
        convert(declared, bounds.low)


NO_UPPER_BOUND = {
    "caption_dropout_every_n_epochs",
    "token_warmup_min",
    "token_warmup_step",
    "save_every_n_epochs",
} | {
    "save_every_n_steps",
    "save_n_epoch_ratio",
    "save_last_n_epochs",
    "save_last_n_epochs_state",
    "save_last_n_steps",
    "save_last_n_steps_state",
    "save_last_n_step_files",
    "sample_every_n_steps",
    "sample_every_n_epochs",
}
"""Counts where more than a run has simply means never."""


def test_every_option_says_what_it_does() -> None:
    for declared in declarations().values():
        assert declared.info.label and declared.info.help.endswith("."), declared.key
        assert declared.kind != "choice" or len(declared.choices) >= 1


def test_hiding_refers_to_options_that_exist() -> None:
    for declared in declarations().values():
        for key, values in declared.info.show_if:
            other = declarations()[key]
            assert all(convert(other, value) == value for value in values), declared.key


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().network.network_dim = 4  # type: ignore[misc]


def test_all_wrong_values_are_told_at_once() -> None:
    values = {"network_dim": 0, "seed": 1.5, "learing_rate": 1e-4, "learning_rate": "x"}
    with pytest.raises(InputError) as caught:
        Settings.from_flat(values, {"seed": "run.toml, line 3"})
    text = caught.value.text()
    assert len(caught.value.problems) == 4
    assert "run.toml, line 3: seed: expected a whole number, got 1.5" in text
    assert "unknown key learing_rate" in text and "Did you mean learning_rate?" in text
    assert {problem.key for problem in caught.value.problems} == set(values)


def test_the_schema_is_small_plain_and_always_the_same() -> None:
    text = json.dumps(schema())
    assert text == json.dumps(schema())
    assert len(text) < 170_000
    groups = schema()["groups"]
    assert [option["key"] for group in groups for option in group["options"]] == list(declarations())
    by_key = {option["key"]: option for group in groups for option in group["options"]}
    assert by_key["network_dim"]["min"] == 1 and by_key["network_dim"]["optional"] is True
    assert by_key["max_token_length"]["choices"] == [75, 150, 225]
    assert by_key["min_bucket_reso"]["show_if"] == [["enable_bucket", [True]]]
    assert by_key["noise_offset"]["min"] == 0
