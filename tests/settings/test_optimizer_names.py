"""Optimizers and schedules as they stand in presets, files and command lines of the world."""

from __future__ import annotations

import pytest

from backend.errors import InputError
from backend.settings import Settings, parse_command_line

IN_PRESETS = [
    "Adafactor",
    "AdaFactor",
    "AdamW",
    "AdamW8bit",
    "AdamWScheduleFree",
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdamPreprint",
    "DAdaptAdan",
    "DAdaptAdanIP",
    "DAdaptLion",
    "DAdaptSGD",
    "DAdaptation",
    "Lion",
    "Lion8bit",
    "PagedAdamW",
    "PagedAdamW32bit",
    "PagedAdamW8bit",
    "PagedLion8bit",
    "Prodigy",
    "RAdamScheduleFree",
    "SGDNesterov",
    "SGDNesterov8bit",
    "SGDScheduleFree",
    "bitsandbytes.optim.AdEMAMix8bit",
    "bitsandbytes.optim.PagedAdEMAMix8bit",
    "prodigyplus.ProdigyPlusScheduleFree",
    "pytorch_optimizer.CAME",
]
"""Values of the field "optimizer" in the presets and menus of kohya_ss."""
SCHEDULES_IN_PRESETS = [
    "adafactor",
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_with_restarts",
    "linear",
    "piecewise_constant",
    "polynomial",
    "cosine_with_min_lr",
    "inverse_sqrt",
    "warmup_stable_decay",
]


@pytest.mark.parametrize("name", [*IN_PRESETS, "RMSprop", "bitsandbytes.optim.lamb.LAMB"])
def test_every_optimizer_of_kohyas_presets_is_known(name: str) -> None:
    found = Settings.from_flat({"optimizer_type": name}).optimizer.optimizer_type
    assert found.lower() == name.lower()


@pytest.mark.parametrize("name", SCHEDULES_IN_PRESETS)
def test_every_schedule_of_kohyas_presets_is_known(name: str) -> None:
    assert Settings.from_flat({"lr_scheduler": name}).schedule.lr_scheduler == name


def test_what_presets_leave_empty_is_at_its_default() -> None:
    empty = {"lr_scheduler_type": "", "lr_scheduler_args": "", "optimizer_args": "", "optimizer_type": ""}
    assert Settings.from_flat(empty) == Settings()


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("AdamW", "weight_decay=0.1 betas=.9,.95", 2),
        ("Prodigy", '"d0=1e-5" "d_coef=1.0" "decouple=True" "safeguard_warmup=True"', 4),
        ("Prodigy", "weight_decay=0.01 decouple=True d0=0.0001 use_bias_correction=True", 4),
        ("Adafactor", "scale_parameter=True relative_step=True warmup_init=True weight_decay=2", 4),
    ],
)
def test_arguments_are_read_as_presets_write_them(name: str, arguments: str, count: int) -> None:
    found = Settings.from_flat({"optimizer_type": name, "optimizer_args": arguments})
    assert len(found.optimizer.optimizer_args) == count


def test_the_schedule_that_sd_scripts_notes_for_adafactor_is_read_back() -> None:
    assert Settings.from_flat({"lr_scheduler": "adafactor:0.0001"}).schedule.lr_scheduler == "adafactor"


def test_the_old_switches_name_an_optimizer_and_exclude_each_other() -> None:
    command = parse_command_line(["--use_lion_optimizer"], complete=False)
    assert command.settings.optimizer.optimizer_type == "Lion"
    assert [note.what for note in command.notes] == ["use_lion_optimizer is read as optimizer_type = Lion"]
    for other in (["--use_8bit_adam"], ["--optimizer_type", "AdamW"]):
        with pytest.raises(InputError, match="exclude each other"):
            parse_command_line(["--use_lion_optimizer", *other], complete=False)


@pytest.mark.parametrize(
    ("written", "steps"),
    [("0", 0), ("10%", 0.1), ("1.0", 1), (100, 100), ("0.25", 0.25), ("12.5%", 0.125)],
)
@pytest.mark.parametrize("key", ["lr_warmup_steps", "lr_decay_steps"])
def test_steps_mean_what_they_look_like(key: str, written: object, steps: float) -> None:
    assert getattr(Settings.from_flat({key: written}).schedule, key) == steps
