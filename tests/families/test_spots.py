"""Where networks' modules lie in checkpoints."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open

from backend import families
from backend.demo.tiny import build_tiny_sd2, build_tiny_sdxl
from backend.families.spots import other_names, spots


@pytest.fixture(scope="module")
def files(tiny_sd15, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spots")
    build_tiny_sd2(folder / "sd2.safetensors")
    build_tiny_sdxl(folder / "sdxl.safetensors")
    return {"sd1": tiny_sd15, "sd2": folder / "sd2.safetensors", "sdxl": folder / "sdxl.safetensors"}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_module_a_network_may_have_is_found_with_its_shape(family, files):
    model = families.load(files[family])
    with safe_open(files[family], "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    found = {spot.name: spot for spot in spots(family, shapes.keys())}
    sites = [*model.adapter_modules(), *model.further_modules()]
    assert len(sites) > 300
    for site in sites:
        spot = found[site.name]
        rows, *rest = shapes[spot.key]
        own = [n for n in site.module.weight.shape if n != 1]
        assert [n for n in (rows // spot.share[1], *rest) if n != 1] == own, site.name
        assert (spot.bias in shapes) == (site.module.bias is not None), site.name
    plain = {site.name: site.container for site in model.adapter_modules()}
    assert {name: found[name].container for name in plain} == plain
    others = {name for name, spot in found.items() if spot.container and len(shapes[spot.key]) > 1}
    unused = {name for name in others - plain.keys() if not name.startswith("te_text_model_encoder_layers_")}
    assert not unused  # SD 2.x: the file's last text layer is there, but no part of the model


@pytest.mark.parametrize(
    ("family", "model", "network"),
    [
        ("sd3", "sd35_medium_mmdit", "sd35_medium_lora_base"),
        ("sdxl", "full_sdxl_unet", "full_sdxl_lora_conv"),
    ],
)
def test_names_of_full_models(family, model, network, golden_dir):
    keys = golden_dir / "keys"
    state = json.loads((keys / f"{model}_state_dict.json").read_text())
    state = state.get("tensors", state.get("keys", state))
    names = [f"model.diffusion_model.{name}" for name in state]
    found = {spot.name for spot in spots(family, names)}
    wanted = {key.partition(".")[0] for key in json.loads((keys / f"{network}.json").read_text())["tensors"]}
    unet = {name.removeprefix("lora_") for name in wanted if name.startswith("lora_unet_")}
    assert len(unet) > 200 and unet <= found


def test_text_encoders_of_sd3_files():
    names = [
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.31.mlp.fc2.weight",
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
    ]
    assert [spot.name for spot in spots("sd3", names)] == [
        "te1_text_model_encoder_layers_0_self_attn_q_proj",
        "te2_text_model_encoder_layers_31_mlp_fc2",
        "te3_encoder_block_0_layer_1_DenseReluDense_wi_0",
    ]
    assert {spot.container for spot in spots("sd3", names)} == {"text"}


def test_diffusers_names_of_sdxl_are_known_too(files):
    with safe_open(files["sdxl"], "pt") as file:
        names = list(file.keys())
    found = other_names("sdxl", names)
    key = "unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert found[key] == "unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert other_names("sd1", names) == {}
