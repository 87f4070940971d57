"""Every option of loss and noise, from the settings to the trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from backend.settings.sections import LossSettings
from tests.train.small import draw_pictures, run_small, same

HUBER = {"loss_type": "huber"}
OFFSET = {"noise_offset": 0.2}
INPUT = {"ip_noise_gamma": 0.2}
V = {"v_parameterization": True}
MULTIRES = {"multires_noise_iterations": 4}
HELD = {"diff_output_preservation": True, "diff_output_preservation_class": "dog"}

CHANGES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "loss_type": ("l1", {}),
    "huber_schedule": ("constant", HUBER),
    "huber_c": (0.5, HUBER),
    "huber_scale": (3.0, HUBER),
    "min_snr_gamma": (1.0, {}),
    "scale_v_pred_loss_like_noise_pred": (True, V),
    "v_pred_like_loss": (0.5, {}),
    "debiased_estimation_loss": (True, {}),
    "zero_terminal_snr": (True, V),
    "noise_offset": (0.2, {}),
    "noise_offset_random_strength": (True, OFFSET),
    "adaptive_noise_scale": (1.0, OFFSET),
    "multires_noise_iterations": (4, {}),
    "multires_noise_discount": (0.8, MULTIRES),
    "ip_noise_gamma": (0.2, {}),
    "ip_noise_gamma_random_strength": (True, INPUT),
    "min_timestep": (900, {}),
    "max_timestep": (100, {}),
    "masked_loss": (True, {}),
    "masked_loss_normalize": (True, {"masked_loss": True}),
    "diff_output_preservation": (True, {"diff_output_preservation_class": "dog"}),
    "diff_output_preservation_class": ("cat", HELD),
    "diff_output_preservation_trigger": ("sks", HELD),
    "diff_output_preservation_multiplier": (3.0, HELD),
    "prior_loss_weight": (0.1, {"regular": True}),
}
OF_FLOWS = {"weighting_scheme", "logit_mean", "logit_std", "mode_scale", "training_shift"}


def test_no_option_is_forgotten() -> None:
    assert set(LossSettings.model_fields) - OF_FLOWS == set(CHANGES)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    draw_pictures(home / "train" / "1_sks dog", count=2)
    draw_pictures(home / "regular" / "1_dog", count=2, captions=["dog", "dog"])
    masks = home / "masks"
    masks.mkdir()
    for index in range(2):
        mask = Image.new("L", (64, 64), 0)
        mask.paste(255, (0, 0, 64, 20 + 20 * index))
        mask.save(masks / f"{index}.png")
    (home / "masks.toml").write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{home / 'train' / '1_sks dog'}'\n"
        f"conditioning_data_dir = '{masks}'\nclass_tokens = 'sks dog'\ncaption_extension = '.txt'\n",
        encoding="utf-8",
    )
    return home


def trained(home: Path, options: Mapping[str, Any]) -> dict[str, Tensor]:
    values = dict(options)
    if values.get("masked_loss"):
        values["dataset_config"] = str(home / "masks.toml")
    if values.pop("regular", False):
        values["reg_data_dir"] = str(home / "regular")
    return run_small(home / "train", home, max_train_steps=2, **values).weights


@pytest.fixture(scope="module")
def plain(home: Path) -> dict[str, dict[str, Tensor]]:
    return {}


@pytest.mark.parametrize("key", CHANGES)
def test_it_changes_what_is_learnt(key: str, home: Path, plain: dict[str, dict[str, Tensor]]) -> None:
    value, base = CHANGES[key]
    known = plain.get(repr(base)) or trained(home, base)
    plain[repr(base)] = known
    assert not same(known, trained(home, {**base, key: value}))


def test_samples_leave_no_trace_in_the_weights(home: Path) -> None:
    """Dropout, shuffled tags and samplers that draw noise: not one bit is another."""
    options = {"network_dropout": 0.3, "shuffle_caption": True, "max_train_steps": 3, "sample_at_first": True}
    lines = [f"sks dog --w 64 --h 64 --s 2 --ss {name}" for name in ("ddim", "euler_a")]
    drawn = run_small(
        home / "train", home, **options, sample_every_n_steps=1,
        sample_prompt_text="\n".join([*lines, "a broken one --ss euler_a --w -5"]),
    )  # fmt: skip
    assert len(drawn.events.of("sample")) == 4 * 3 and not drawn.events.of("warning")
    assert same(run_small(home / "train", home, **options).weights, drawn.weights)
