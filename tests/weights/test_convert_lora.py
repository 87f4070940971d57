"""LoRAs in the names of other programs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.system.headers import read_header
from backend.weights import convert_lora, merge_into
from backend.weights.convert_lora import ConvertLora
from backend.weights.merge_into import MergeInto
from backend.weights.names import in_dots
from tests.weights.weights_kit import distance, make_lora, metadata_of, products, tensors_of


def turn(source, target, to):
    convert_lora.run(ConvertLora(source, target, to))
    return target


@pytest.mark.parametrize("name", ["lora_a", "xl_lora"])
@pytest.mark.parametrize("to", ["diffusers", "comfyui"])
def test_there_and_back_is_the_same_network(golden_dir, tmp_path, name, to):
    source = golden_dir / "in" / f"{name}.safetensors"
    other = turn(source, tmp_path / "o.safetensors", to)
    back = turn(other, tmp_path / "b.safetensors", "kohya")
    assert tensors_of(back).keys() == tensors_of(source).keys()
    assert distance(products(back), products(source)) < 2e-3  # alpha / rank goes into fp16 weights
    if to == "comfyui":
        one, two = tensors_of(source), tensors_of(back)
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("checkpoint", "name"), [("tiny_sd15_fp16", "lora_a"), ("tiny_sdxl_small", "xl_lora")]
)
def test_comfyui_s_names_are_the_checkpoint_s(golden_dir, tmp_path, checkpoint, name):
    other = turn(golden_dir / "in" / f"{name}.safetensors", tmp_path / "o.safetensors", "comfyui")
    model = read_header(golden_dir / "in" / f"{checkpoint}.safetensors").tensors
    unet = {
        key.rsplit(".lora_", 1)[0]
        for key in tensors_of(other)
        if key.startswith("diffusion_model.") and ".lora_" in key
    }
    assert len(unet) in (278, 788)
    assert all(f"model.{path}.weight" in model for path in unet)


def test_diffusers_names_are_those_of_its_modules(golden_dir, tmp_path):
    from diffusers import UNet2DConditionModel

    other = turn(golden_dir / "in" / "xl_lora.safetensors", tmp_path / "o.safetensors", "diffusers")
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64, 32), transformer_layers_per_block=[1, 2, 10], cross_attention_dim=36,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        )  # fmt: skip
    modules = {f"unet.{name}" for name, _ in unet.named_modules()}
    found = {key.partition(".lora_")[0] for key in tensors_of(other) if key.startswith("unet.")}
    assert len(found) == 788 and found <= modules
    texts = {key.partition(".lora_")[0] for key in tensors_of(other) if key.startswith("text_encoder_2.")}
    assert "text_encoder_2.text_model.encoder.layers.31.mlp.fc2" in texts and len(texts) == 192


@pytest.mark.parametrize(
    "table", ["full_sdxl_lora_conv", "full_sd2_lora", "sd35_medium_lora_base", "full_sd15_lora_conv"]
)
def test_every_name_in_the_world_has_its_path(golden_dir, table):
    names = {
        key.partition(".")[0]
        for key in json.loads((golden_dir / "keys" / f"{table}.json").read_text())["tensors"]
    }
    for name in names:
        path = in_dots(name.removeprefix("lora_unet_")) if "lora_unet_" in name else ""
        assert path.replace(".", "_") == name.removeprefix("lora_unet_") or not path
    family = {"full_sdxl": "sdxl", "full_sd2_": "sd2", "sd35_medi": "sd3", "full_sd15": "sd1"}[table[:9]]
    from backend.weights.names import renamed, to_kohya

    bare = {name.removeprefix("lora_") for name in names}
    comfy = renamed(bare, family, "comfyui")
    assert comfy.keys() == bare and len(set(comfy.values())) == len(bare)
    back = to_kohya(comfy.values(), family, "comfyui")
    assert {path: name for name, path in comfy.items()} == back


def test_a_lora_in_other_names_merges_the_same(tiny_sd15, golden_dir, tmp_path):
    source = make_lora(tmp_path / "a.safetensors")
    for to in ("diffusers", "comfyui"):
        turn(source, tmp_path / f"{to}.safetensors", to)
    found = []
    for name in ("a", "diffusers", "comfyui"):
        out = tmp_path / f"m_{name}.safetensors"
        report = merge_into.run(MergeInto(tiny_sd15, [tmp_path / f"{name}.safetensors"], [1.0], out))
        assert len(report.kept) == 4
        found.append(tensors_of(out))
    for other in found[1:]:
        assert all(torch.allclose(found[0][key], other[key], atol=1e-5) for key in found[0])
    xl = turn(golden_dir / "in" / "xl_lora.safetensors", tmp_path / "xl.safetensors", "diffusers")
    model = golden_dir / "in" / "tiny_sdxl_small.safetensors"
    report = merge_into.run(MergeInto(model, [xl], [1.0], tmp_path / "xlm.safetensors"))
    assert len(report.kept) == 1052 and not report.dropped


def test_what_a_dialect_cannot_say_is_refused(tmp_path):
    tensors = tensors_of(make_lora(tmp_path / "a.safetensors"))
    name = "lora_unet_mid_block_attentions_0_proj_in"
    tensors |= {f"{name}.hada_{part}": torch.ones(4, 4) for part in ("w1_a", "w1_b", "w2_a", "w2_b")}
    tensors[f"{name}.alpha"] = torch.tensor(4.0)
    save_file(tensors, tmp_path / "h.safetensors", {"ss_base_model_version": "sd_v1"})
    with pytest.raises(InputError, match="LoHa"):
        turn(tmp_path / "h.safetensors", tmp_path / "p.safetensors", "diffusers")
    assert not (tmp_path / "p.safetensors").exists()
    turn(tmp_path / "h.safetensors", tmp_path / "c.safetensors", "comfyui")
    assert "diffusion_model.middle_block.1.proj_in.hada_w1_a" in tensors_of(tmp_path / "c.safetensors")
    assert "atelier.recipe" in metadata_of(tmp_path / "c.safetensors")
