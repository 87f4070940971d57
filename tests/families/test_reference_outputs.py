"""Our networks give what diffusers and transformers give for the same weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backend import families
from backend.families.sd1.model import StableDiffusion1


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def reference_unet(tiny: StableDiffusion1):
    from diffusers import UNet2DConditionModel

    shape = tiny.unet.shape
    cross, plain = "CrossAttnDownBlock2D", "DownBlock2D"
    unet = UNet2DConditionModel(
        block_out_channels=shape.widths,
        down_block_types=(cross, cross, cross, plain),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        cross_attention_dim=shape.context_width,
        attention_head_dim=shape.heads,
        norm_num_groups=shape.norm_groups,
    )
    unet.load_state_dict(tiny.unet.state_dict(), strict=True)
    return unet.eval()


@pytest.fixture(scope="module")
def reference_vae(tiny: StableDiffusion1):
    from diffusers import AutoencoderKL

    shape = tiny.autoencoder.shape
    vae = AutoencoderKL(
        block_out_channels=shape.widths,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        norm_num_groups=shape.norm_groups,
    )
    vae.load_state_dict(tiny.vae.state_dict(), strict=True)
    return vae.eval()


@pytest.fixture(scope="module")
def reference_text(tiny: StableDiffusion1):
    from transformers import CLIPTextConfig, CLIPTextModel

    shape = tiny.text_encoder.shape
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_attention_heads=shape.heads,
            num_hidden_layers=shape.layers,
            hidden_act=shape.activation,
        )
    )
    state = tiny.text_encoder.state_dict()
    text.load_state_dict(
        {name.removeprefix("text_model."): value for name, value in state.items()}, strict=True
    )
    return text.eval()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (15, 17)])
def test_unet_equals_diffusers(tiny: StableDiffusion1, reference_unet, height: int, width: int) -> None:
    sample, context = noise(1, 2, 4, height, width), noise(2, 2, 77, 48)
    timesteps = torch.tensor([3, 977])
    with torch.no_grad():
        ours = tiny.predict(sample, timesteps, {"hidden": context})
        theirs = reference_unet(sample, timesteps, context).sample
    assert theirs.std() > 0.05
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_vae_equals_diffusers(tiny: StableDiffusion1, reference_vae) -> None:
    pixels, draw = noise(3, 2, 3, 64, 48).clamp(-1, 1), noise(4, 2, 4, 8, 6)
    with torch.no_grad():
        posterior = reference_vae.encode(pixels).latent_dist
        latents = (posterior.mean + posterior.std * draw) * 0.18215
        torch.testing.assert_close(tiny.encode_images(pixels, draw), latents, atol=1e-5, rtol=1e-5)
        decoded = reference_vae.decode(latents / 0.18215).sample
        torch.testing.assert_close(tiny.decode_latents(latents), decoded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clip_skip", [None, 1, 2, 5])
def test_text_encoder_equals_transformers(
    tiny: StableDiffusion1, reference_text, clip_skip: int | None
) -> None:
    tokens = tiny.tokenize(["a photo of a cat", "sks, red hat, " * 9])
    with torch.no_grad():
        ours = tiny.encode_text(tokens, clip_skip)["hidden"]
        result = reference_text(tokens["te"][:, 0], output_hidden_states=True)
        states = result.hidden_states[-(clip_skip or 1)]
        theirs = result.last_hidden_state if clip_skip is None else reference_text.final_layer_norm(states)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_diffusers_folder_loads_and_gives_the_same(
    tiny: StableDiffusion1, tiny_sd15: Path, reference_unet, reference_vae, reference_text, tmp_path: Path
) -> None:
    reference_unet.save_pretrained(tmp_path / "unet")
    reference_unet.half().save_pretrained(tmp_path / "unet", variant="fp16")
    reference_unet.float()
    reference_vae.save_pretrained(tmp_path / "vae")
    reference_text.save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    model = families.load(tmp_path)
    assert isinstance(model, StableDiffusion1)
    for part, module in {**tiny.parts(), "vae": tiny.vae}.items():
        other = {**model.parts(), "vae": model.vae}[part].state_dict()
        assert all(torch.equal(value, other[name]) for name, value in module.state_dict().items()), part
    assert model.unet.shape == tiny.unet.shape
    assert model.text_encoder.shape == tiny.text_encoder.shape
    for vae in (tmp_path, tmp_path / "vae"):
        from_vae_folder = families.load(tiny_sd15, vae=vae)
        assert torch.equal(
            from_vae_folder.vae.state_dict()["quant_conv.weight"], tiny.vae.state_dict()["quant_conv.weight"]
        )
    model.save(tmp_path / "single.safetensors", torch.float16)
    again = families.load(tmp_path / "single.safetensors")
    assert isinstance(again, StableDiffusion1)
    assert again.text_encoder.shape == dataclasses.replace(tiny.text_encoder.shape)
    assert again.autoencoder.shape == tiny.autoencoder.shape


def test_diffusers_reads_what_we_save(tiny: StableDiffusion1, reference_unet, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    tiny.save(tmp_path / "saved.safetensors", None)
    reference_unet.save_config(tmp_path / "unet")
    unet = UNet2DConditionModel.from_single_file(
        str(tmp_path / "saved.safetensors"), config=str(tmp_path), subfolder="unet", local_files_only=True
    )
    ours = tiny.unet.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in unet.state_dict().items())


def add_lora(model: StableDiffusion1, lora: dict[str, torch.Tensor]) -> int:
    """Add a LoRA's deltas to the weights; returns how many modules it changed."""
    modules = {adapter.name: adapter.module for adapter in model.adapter_modules()}
    names = {name.partition(".")[0] for name in lora}
    for name in names:
        down, up = lora[f"{name}.lora_down.weight"].float(), lora[f"{name}.lora_up.weight"].float()
        scale = lora[f"{name}.alpha"].item() / down.shape[0]
        weight = modules[name.removeprefix("lora_")].weight
        weight.data += ((up.flatten(1) @ down.flatten(1)) * scale).view(weight.shape)
    return len(names)


@pytest.mark.parametrize(("case", "clip_skip"), [("eps", None), ("clip_skip2", 2)])
def test_golden_step_with_a_lora(
    golden_dir: Path, tiny_golden: Path, case: str, clip_skip: int | None
) -> None:
    model = families.load(tiny_golden)
    assert isinstance(model, StableDiffusion1)
    assert add_lora(model, load_file(golden_dir / "in" / "lora_a.safetensors")) == 350
    step = load_file(golden_dir / "loss_parity" / f"{case}.safetensors")
    captions = json.loads((golden_dir / "loss_parity" / f"{case}.json").read_text())["captions"]
    tokens = model.tokenize(captions)
    assert torch.equal(tokens["te"], step["input_ids_0"])
    with torch.no_grad():
        conditioning = model.encode_text(tokens, clip_skip)
        prediction = model.predict(step["noisy_latents"], step["timesteps"], conditioning)
    torch.testing.assert_close(conditioning["hidden"], step["text_cond_0"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prediction, step["pred"], atol=1e-5, rtol=1e-5)


def test_schedule_equals_the_reference(golden_dir: Path, tiny: StableDiffusion1) -> None:
    wanted = load_file(golden_dir / "out" / "loss_functions.safetensors")["alphas_cumprod"]
    assert torch.equal(tiny.alphas_cumprod(), wanted)
