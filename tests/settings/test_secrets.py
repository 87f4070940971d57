"""Tokens and home folders stay where they belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.settings import Settings, declarations, read_toml, to_command_line, to_toml, write_toml
from backend.settings.presets import save_preset
from backend.settings.secrets import ENVIRONMENT, environment_of, hand_over, public_values, shareable

TOKEN = "tok_123456789"
SECRET = {key: f"{TOKEN}_{key}" for key in ENVIRONMENT}


@pytest.fixture
def settings() -> Settings:
    return Settings.from_flat({**SECRET, "network_dim": 8})


def test_every_secret_has_a_variable_to_travel_in() -> None:
    assert {key for key, one in declarations().items() if one.info.secret} == set(ENVIRONMENT)


def test_no_text_made_of_settings_holds_a_secret(settings: Settings, tmp_path: Path) -> None:
    write_toml(settings, tmp_path / "run.toml")
    texts = [to_toml(settings), " ".join(to_command_line(settings)), (tmp_path / "run.toml").read_text()]
    assert all(TOKEN not in text and "8" in text for text in texts)
    assert read_toml(tmp_path / "run.toml") == Settings.from_flat({"network_dim": 8})
    assert TOKEN not in str(shareable(settings.flat())) + str(public_values(settings.flat()))


def test_presets_hold_no_secret(settings: Settings, tmp_path: Path) -> None:
    save_preset(tmp_path, "mine", settings)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(TOKEN not in path.read_text() for path in files)


def test_secrets_move_into_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ENVIRONMENT.values():
        monkeypatch.setenv(variable, "another")
    assert environment_of(settings) == {ENVIRONMENT[key]: value for key, value in SECRET.items()}
    left = hand_over(settings)
    assert left == Settings.from_flat({"network_dim": 8})
    assert all(os.environ[variable] == SECRET[key] for key, variable in ENVIRONMENT.items())
    hand_over(left)
    assert all(os.environ[variable] == SECRET[key] for key, variable in ENVIRONMENT.items())


def test_folders_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    found = shareable(
        {
            "vae": "/home/someone/v.safetensors",
            "base_weights": ["/home/someone/a.safetensors", "b.safetensors"],
            "optimizer_args": ["weight_decay=0.1"],
            "training_comment": "made in /home/someone/x",
            "network_dim": 8,
        }
    )
    assert found == {
        "vae": "v.safetensors",
        "base_weights": ["a.safetensors", "b.safetensors"],
        "optimizer_args": ["weight_decay=0.1"],
        "training_comment": "made in ~/x",
        "network_dim": 8,
    }
