"""Base models from one kind of file to another, and checkpoints merged into one."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from backend import families
from backend.errors import InputError
from backend.weights import convert, merge_models
from backend.weights.convert import Convert, read_metadata
from backend.weights.merge_models import MergeModels, block_slot
from tests.weights.weights_kit import left_behind, metadata_of, tensors_of


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(source, target, **options):
    return convert.run(Convert(source, target, **options))


def facts(path):
    return {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch."), digest(tensor)]
        for name, tensor in tensors_of(path).items()
    }


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def same(found, wanted):
    """As the reference: the same names, shapes, types and bytes."""
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.fixture(scope="module")
def folder(golden_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "model"
    run(golden_dir / "in" / "tiny_sd15_fp16.safetensors", path)
    return path


@pytest.fixture(scope="module")
def wanted(golden_dir):
    return json.loads((golden_dir / "out" / "convert.json").read_text())


def test_a_checkpoint_becomes_the_reference_s_folder(folder, wanted):
    for name, told in wanted["to_diffusers"].items():
        same(facts(folder / name), told["tensors"])
    for name, told in wanted["to_diffusers_configs"].items():
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        own = {key: value for key, value in found.items() if key != "_diffusers_version"}
        if name.startswith("tokenizer"):
            assert found.get("model_max_length", 77) == 77
            continue
        assert {key: told.get(key) for key in own} == own, name


def test_diffusers_and_transformers_take_the_folder(folder):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert (
        unet.state_dict().keys() == tensors_of(folder / "unet" / "diffusion_pytorch_model.safetensors").keys()
    )
    vae, info = AutoencoderKL.from_pretrained(folder / "vae", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and vae.config.scaling_factor == 0.18215
    _, info = CLIPTextModel.from_pretrained(folder / "text_encoder", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert DDIMScheduler.from_pretrained(folder / "scheduler").config.prediction_type == "epsilon"
    ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")("a photo of sks dog").input_ids
    assert ids == [49406, 320, 1125, 539, 48136, 1929, 49407]


def test_there_and_back_is_the_same_file(folder, wanted, golden_dir, tmp_path):
    run(folder, tmp_path / "back.safetensors", precision="fp16")
    same(facts(tmp_path / "back.safetensors"), wanted["back_to_ckpt_fp16"]["tensors"])
    run(folder, tmp_path / "plain.safetensors")
    same(facts(tmp_path / "plain.safetensors"), wanted["back_to_ckpt_noprecision"]["tensors"])
    families.load(tmp_path / "back.safetensors")
    assert "atelier.components" in metadata_of(tmp_path / "back.safetensors")


def test_precision_changes_in_a_stream(golden_dir, wanted, tmp_path):
    run(golden_dir / "in" / "tiny_sd15_fp16.safetensors", tmp_path / "b.safetensors", precision="bf16")
    same(facts(tmp_path / "b.safetensors"), wanted["ckpt_to_ckpt_bf16"]["tensors"])


@pytest.mark.parametrize("name", ["model", "model.ckpt"])
def test_sdxl_goes_there_and_back(golden_dir, tmp_path, name):
    source = golden_dir / "in" / "tiny_sdxl_small.safetensors"
    run(source, tmp_path / name, precision="fp16")
    run(tmp_path / name, tmp_path / "back.safetensors", precision="fp16")
    before, after = tensors_of(source), tensors_of(tmp_path / "back.safetensors")
    assert before.keys() - after.keys() <= {
        name for name in before if name.endswith(("position_ids", "logit_scale"))
    }
    assert all(torch.equal(before[name], after[name]) for name in before.keys() & after.keys())


def test_pickles_have_their_counts(tiny_sd15, tmp_path):
    run(tiny_sd15, tmp_path / "a.ckpt", precision=None, epoch=3, global_step=70)
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert (found["epoch"], found["global_step"]) == (3, 70)
    run(tmp_path / "a.ckpt", tmp_path / "b.safetensors", precision=None)
    before, after = tensors_of(tiny_sd15), tensors_of(tmp_path / "b.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_ema_copies_are_pruned_and_a_vae_is_baked_in(tiny_sd15, tmp_path):
    tensors = tensors_of(tiny_sd15)
    name = "first_stage_model.decoder.conv_in.weight"
    save_file(
        {**tensors, "model_ema.decay": torch.ones(1)}, tmp_path / "ema.safetensors", metadata_of(tiny_sd15)
    )
    report = run(tmp_path / "ema.safetensors", tmp_path / "p.safetensors", precision=None, prune_ema=True)
    assert [item.name for item in report.dropped] == ["model_ema.decay"]
    assert tensors_of(tmp_path / "p.safetensors").keys() == tensors.keys()
    start = "first_stage_model."
    vae = {key.removeprefix(start): value * 0.5 for key, value in tensors.items() if key.startswith(start)}
    config = {"atelier.components": metadata_of(tiny_sd15)["atelier.components"]}
    save_file(vae, tmp_path / "vae.safetensors", config)
    run(tmp_path / "ema.safetensors", tmp_path / "v.safetensors", precision="fp16", vae=tmp_path / "vae.safetensors",
        prune_ema=True)  # fmt: skip
    found = tensors_of(tmp_path / "v.safetensors")
    assert torch.equal(found[name], tensors[name] * 0.5) and "model_ema.decay" not in found
    assert not left_behind(tmp_path) and not list(tmp_path.glob(".*"))


def test_what_cannot_be_converted_is_told_before(tiny_sd15, tmp_path):
    with pytest.raises(InputError, match="variant"):
        run(tiny_sd15, tmp_path / "a.safetensors", variant="fp16")
    with pytest.raises(InputError, match="the output is the input"):
        run(tiny_sd15, tiny_sd15, overwrite=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    with pytest.raises(InputError, match="there already"):
        run(tiny_sd15, tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(InputError, match="JSON"):
        read_metadata("[1]")


def changed(source, target, factor):
    """A copy with all weights multiplied."""
    tensors = {
        name: tensor * factor if tensor.is_floating_point() else tensor
        for name, tensor in tensors_of(source).items()
    }
    save_file(tensors, target, metadata_of(source))
    return target


CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
MIDDLE = "model.diffusion_model.middle_block.1.proj_in.weight"
TEXT = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
VAE = "first_stage_model.decoder.conv_in.weight"


@pytest.fixture(scope="module")
def three(tiny_sd15, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return (
        tiny_sd15,
        changed(tiny_sd15, folder / "b.safetensors", 2.0),
        changed(tiny_sd15, folder / "c.safetensors", 0.5),
    )


def merged(out, models, **options):
    report = merge_models.run(MergeModels(list(models), out, overwrite=True, **options))
    one, two = tensors_of(models[0]), tensors_of(out)
    return report, {
        name: float(two[name].flatten()[0] / one[name].float().flatten()[0])
        for name in (CONV_IN, MIDDLE, TEXT, VAE)
    }


def test_models_are_summed_by_their_ratios(three, tmp_path):
    out = tmp_path / "m.safetensors"
    _, factors = merged(out, three[:2], ratios=[0.7, 0.3])
    assert all(value == pytest.approx(1.3, rel=1e-3) for value in factors.values())
    _, factors = merged(out, three)
    assert all(value == pytest.approx(3.5 / 3, rel=1e-3) for value in factors.values())
    _, factors = merged(out, three, mode="add_difference", ratios=[0.5])
    assert all(value == pytest.approx(1.75, rel=1e-3) for value in factors.values())
    _, factors = merged(out, three[:2], ratios=[0.0, 1.0], unet_only=True)
    assert factors == pytest.approx({CONV_IN: 2, MIDDLE: 2, TEXT: 1, VAE: 1}, rel=1e-3)


def test_blocks_have_weights_of_their_own(three, tmp_path):
    weights = [0.0] * 26
    weights[0], weights[1], weights[13] = 0.25, 1.0, 0.5
    _, factors = merged(tmp_path / "m.safetensors", three[:2], mbw=json.dumps(weights))
    assert factors == pytest.approx({CONV_IN: 2, MIDDLE: 1.5, TEXT: 1.25, VAE: 1.25}, rel=1e-3)
    assert [block_slot(name) for name in (CONV_IN, MIDDLE, TEXT, VAE)] == [1, 13, 0, 0]
    assert block_slot("model.diffusion_model.output_blocks.11.0.in_layers.0.weight") == 25


def test_models_that_do_not_fit_are_refused_or_reported(three, golden_dir, tmp_path):
    out = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=r"SD 1\.5.*SDXL"):
        merged(out, [three[0], golden_dir / "in" / "tiny_sdxl_small.safetensors"])
    for options, count in (
        ({"ratios": [1.0]}, 2),
        ({"mode": "add_difference"}, 2),
        ({"mbw": "[1]"}, 2),
        ({}, 1),
    ):
        with pytest.raises(InputError):
            merged(out, three[:count], **options)
    assert not out.exists()
    tensors = tensors_of(three[1])
    tensors.pop(TEXT)
    tensors[CONV_IN] = torch.zeros(32, 9, 3, 3)
    save_file({**tensors, "extra": torch.ones(1)}, tmp_path / "odd.safetensors", metadata_of(three[1]))
    report, factors = merged(out, [three[0], tmp_path / "odd.safetensors"])
    assert {item.name for item in report.dropped} == {CONV_IN, TEXT, "extra"}
    assert factors == pytest.approx({CONV_IN: 1, MIDDLE: 1.5, TEXT: 1, VAE: 1.5}, rel=1e-3)
