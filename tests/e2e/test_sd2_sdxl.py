"""SD 2.x and SDXL from the command line, and their LoRA files in diffusers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from backend import families, networks
from backend.demo.tiny import build_tiny_sd2, build_tiny_sdxl
from backend.families.parts.latent import LatentDiffusion
from backend.generate import sampling
from backend.generate.engine import resolve
from backend.generate.request import Request
from tests.e2e.conftest import World, events
from tests.families.reference import reference_text, reference_unet

pytestmark = pytest.mark.e2e

BUILD = {"sd2": build_tiny_sd2, "sdxl": build_tiny_sdxl}


@pytest.fixture(scope="module")
def world_of(make_world: Callable[[], World], tmp_path_factory: pytest.TempPathFactory):
    worlds: dict[str, World] = {}

    def of(family: str) -> World:
        if family not in worlds:
            path = tmp_path_factory.mktemp("model") / f"{family}.safetensors"
            BUILD[family](path, metadata={"modelspec.prediction_type": "epsilon"})
            worlds[family] = replace(make_world(), model=path)
        return worlds[family]

    return of


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_sdxl_trains_samples_and_goes_on(world_of) -> None:
    world: World = world_of("sdxl")
    options = {
        "text_encoder_lr": ["1e-3", "5e-4"], "enable_bucket": True, "bucket_reso_steps": 32, "min_bucket_reso": 32,
        "max_token_length": 150, "sample_prompt_text": "a cat --w 64 --h 64 --s 2",
    }  # fmt: skip
    done = world.python(
        "tools/sdxl_train_network.py",
        *world.options(**options, max_train_steps=2, save_state_on_train_end=True, sample_every_n_steps=2),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = world.home / "out" / "result.safetensors"
    weights, metadata = load_file(result), metadata_of(result)
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["ss_text_encoder_lr"] == "[0.001, 0.0005]"
    prefixes = {name.split("_text_model")[0].split("_blocks")[0].split("_block_")[0] for name in weights}
    assert prefixes == {"lora_te1", "lora_te2", "lora_unet_input", "lora_unet_middle", "lora_unet_output"}
    assert all(
        tensor.abs().max() > 0
        for name, tensor in weights.items()
        if name.endswith("attn2_to_k.lora_up.weight")
    )
    run = world.newest_run()
    assert len(events(run, "sample")) == 1
    rates = events(run, "step")[-1]["lr"]
    assert (rates["te1"], rates["te2"]) == (1e-3, 5e-4)
    resumed = world.python(
        "tools/sdxl_train_network.py",
        *world.options(
            **options, max_train_steps=3, resume=world.home / "out" / "result-state", output_name="more"
        ),
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert events(world.newest_run(), "step")[-1]["step"] == 3


def test_sdxl_with_cached_text_gives_the_unet_alone(world_of) -> None:
    world: World = world_of("sdxl")
    options = {
        "cache_text_encoder_outputs_to_disk": True,
        "cache_text_encoder_outputs": True,
        "max_train_steps": 1,
    }
    for name in ("cached", "again"):
        done = world.train(**options, output_name=name)
        assert done.returncode == 0, done.stdout + done.stderr
    plain = world.train(max_train_steps=1, output_name="live", network_train_unet_only=True)
    assert plain.returncode == 0, plain.stdout + plain.stderr
    files = [load_file(world.home / "out" / f"{name}.safetensors") for name in ("cached", "again", "live")]
    assert all(name.startswith("lora_unet_") for name in files[0])
    for name, tensor in files[0].items():
        assert torch.equal(tensor, files[1][name]), "from the disk the same as when made"
        torch.testing.assert_close(tensor, files[2][name], atol=1e-5, rtol=1e-3)


def test_sd2_trains_with_v2_and_v(world_of) -> None:
    world: World = world_of("sd2")
    done = world.train(v2=True, v_parameterization=True, max_train_steps=2, output_name="v")
    assert done.returncode == 0, done.stdout + done.stderr
    metadata = metadata_of(world.home / "out" / "v.safetensors")
    assert metadata["ss_base_model_version"] == "sd_v2_v"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"
    assert metadata["modelspec.prediction_type"] == "v"
    assert len(load_file(world.home / "out" / "v.safetensors")) == (3 * 6 + 192) * 3


def test_scripts_refuse_other_models(world: World, world_of) -> None:
    done = world.python("tools/sdxl_train_network.py", *world.options())
    assert done.returncode == 2
    assert "sdxl_train_network.py is for SDXL; this is SD 1.5" in done.stderr + done.stdout
    done = world.python(
        "tools/train_network.py", *replace(world, model=world_of("sdxl").model).options(v2=True)
    )
    assert done.returncode == 2
    assert "--v2 says that the base model is SD 2.x; this is SDXL" in done.stderr + done.stdout


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_a_lora_changes_the_picture_as_in_diffusers(family: str, world_of, tmp_path: Path) -> None:
    model = families.load(world_of(family).model)
    assert isinstance(model, LatentDiffusion)
    spec = networks.NetworkSpec(dim=4, alpha=4.0, conv_dim=2, conv_alpha=2.0)
    network = networks.create("networks.lora", list(model.adapter_modules()), spec, seed=1)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_weights().items():
        if "lora_up" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    weights = network.file_weights()
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "lora.safetensors")

    pipeline = pipeline_of(model)
    request = Request(
        prompt="a red cat", negative="blur", width=64, height=64, steps=3, scale=4.0, seed=5, sampler="ddim"
    )
    plain = drawn(model, request)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    draw = {
        "prompt": "a red cat", "negative_prompt": "blur", "width": 64, "height": 64, "num_inference_steps": 3,
        "guidance_scale": 4.0, "output_type": "latent",
    }  # fmt: skip
    torch.testing.assert_close(pipeline(**draw, latents=noise.clone()).images, plain, atol=1e-3, rtol=1e-3)

    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    injected = sum(name.endswith(".lora_A.default_0.weight") for name, _ in pipeline.unet.named_parameters())
    wanted = sum(name.endswith("lora_down.weight") for name in weights if name.startswith("lora_unet"))
    assert injected == wanted, "nothing is missing, nothing is left over"
    network.attach()
    changed = drawn(model, request)
    assert (changed - plain).abs().max() > 0.05
    theirs = pipeline(**draw, latents=noise.clone()).images
    torch.testing.assert_close(theirs, changed, atol=1e-3, rtol=1e-3)


def drawn(model: LatentDiffusion, request: Request) -> torch.Tensor:
    """Latents (1, 4, h, w) of what our engine draws."""
    return sampling.sample(model, resolve(model, request)).final


def pipeline_of(model: LatentDiffusion):
    """diffusers' own pipeline, made of its own components with our weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    from backend.data.tokens import END, START, bpe, merges

    vocabulary = bpe().get_vocab()
    tokenizers = [
        CLIPTokenizer(
            vocab=vocabulary, merges=merges(), pad_token=END if padding is None else "!", bos_token=START,
            eos_token=END, unk_token=END, model_max_length=77,
        )
        for padding in (model.padding.get(key) for key in model.text_parts)
    ]  # fmt: skip
    shape = model.autoencoder.shape
    vae = AutoencoderKL(
        block_out_channels=shape.widths, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, norm_num_groups=shape.norm_groups,
        scaling_factor=shape.scaling_factor,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    texts = [reference_text(model.text(key)) for key in model.text_parts]
    common = {"vae": vae, "unet": reference_unet(model), "scheduler": scheduler}
    if len(texts) == 2:
        pipeline = StableDiffusionXLPipeline(
            text_encoder=texts[0], text_encoder_2=texts[1], tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], **common,
            add_watermarker=False,
        )  # fmt: skip
    else:
        pipeline = StableDiffusionPipeline(
            text_encoder=texts[0], tokenizer=tokenizers[0], safety_checker=None, feature_extractor=None,
            requires_safety_checker=False, **common,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
