"""Other networks than LoRA, from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.e2e.conftest import World, events

pytestmark = pytest.mark.e2e


def test_dylora_with_convolutions_and_max_norm(world: World) -> None:
    arguments = ["conv_dim=4", "conv_alpha=2", "unit=2", "loraplus_lr_ratio=4"]
    done = world.train(
        network_module="networks.dylora", network_args=arguments, max_train_steps=2, scale_weight_norms=0.001
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = world.home / "out" / "result.safetensors"
    weights = load_file(result)
    assert len(weights) == 350 * 3
    with safe_open(result, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_module"] == "networks.dylora"
    assert json.loads(metadata["ss_network_args"])["unit"] == "2"
    rates = events(world.newest_run(), "step")[-1]
    assert "unet plus" in json.dumps(rates)
    for name, up in weights.items():
        if name.endswith("lora_up.weight"):
            down = weights[name.replace("lora_up", "lora_down")]
            scale = float(weights[name.replace("lora_up.weight", "alpha")]) / down.shape[0]
            assert (scale * up.flatten(1) @ down.flatten(1)).norm() <= 0.001 * 1.01


def test_lycoris_with_dora_and_tucker_stops_and_goes_on(world: World) -> None:
    arguments = ["conv_dim=1", "conv_alpha=1", "use_tucker=True", "dora_wd=True", "bypass_mode=True"]
    options = {"network_module": "lycoris.kohya", "network_args": arguments, "network_train_unet_only": True}
    done = world.train(**options, max_train_steps=2, save_state_on_train_end=True, output_name="first")
    assert done.returncode == 0, done.stdout + done.stderr
    weights = load_file(world.home / "out" / "first.safetensors")
    assert {name.partition(".")[2] for name in weights} == {
        "alpha", "dora_scale", "lora_down.weight", "lora_mid.weight", "lora_up.weight",
    }  # fmt: skip
    assert len({name.partition(".")[0] for name in weights}) == 282
    resumed = world.train(**options, max_train_steps=3, resume=next((world.home / "out").glob("*-state")))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    later = load_file(world.home / "out" / "result.safetensors")
    assert later.keys() == weights.keys()
    assert any(not torch.equal(later[name], tensor) for name, tensor in weights.items())
