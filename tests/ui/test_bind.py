"""Fields and settings, by key."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.settings import Settings, declarations, parse_command_line
from ui.bind import command_line, own_keys, read, settings_of, wire_values


def test_values_become_settings_by_key():
    settings = settings_of(
        {"network_dim": 8, "resolution": "512,768", "optimizer_args": "weight_decay=0.1 eps=1e-8"}
    )
    assert settings.network.network_dim == 8
    assert settings.dataset.resolution == (512, 768)
    assert settings.optimizer.optimizer_args == ("weight_decay=0.1", "eps=1e-8")


def test_zero_stays_zero_and_empty_is_the_default():
    assert settings_of({"max_grad_norm": 0}).optimizer.max_grad_norm == 0
    assert settings_of({"max_grad_norm": None}) == Settings()


def test_what_can_be_read_is_read_beside_what_cannot():
    reading = read({"network_dim": "many", "learning_rate": 1e-4})
    assert reading.settings.optimizer.learning_rate == 1e-4
    assert [problem.key for problem in reading.problems] == ["network_dim"]


def test_unknown_keys_are_told():
    with pytest.raises(InputError, match="learing_rate"):
        settings_of({"learing_rate": 1e-4})


def test_flat_settings_and_form_values_are_the_same_settings():
    settings = settings_of(
        {
            "optimizer_args": "eps=1 weight_decay=0.1",
            "resolution": 640,
            "flip_aug": True,
            "lr_warmup_steps": "10%",
        }
    )
    assert settings_of(wire_values(settings.changed())) == settings


def test_spaces_around_a_path_and_the_home_sign_are_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert settings_of({"train_data_dir": " ~/pictures "}).dataset.train_data_dir == str(
        tmp_path / "pictures"
    )


def test_the_command_line_shown_gives_the_same_settings():
    values = {
        "output_name": "two words & 猫",
        "cache_latents": True,
        "network_dim": 8,
        "optimizer_args": "eps=1e-8 weight_decay=0.1",
        "pretrained_model_name_or_path": "/m/ü.safetensors",
        "train_data_dir": "/p",
    }
    settings = settings_of(values)
    words = shlex.split(command_line(settings))
    assert words[:2] == ["python", "tools/train_network.py"]
    assert parse_command_line(words[2:]).settings == settings


def test_presets_leave_alone_what_is_a_persons_own():
    own = set(own_keys())
    assert {"pretrained_model_name_or_path", "train_data_dir", "output_name", "sample_prompt_text"} <= own
    assert {"learning_rate", "network_dim", "resolution"}.isdisjoint(own)
    assert own <= set(declarations())
