"""The engine with a real checkpoint: the tiny SD 1.5 of the reference files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend import families, networks
from backend.generate import engine, samplers, sampling
from backend.generate.request import Request


@pytest.fixture(scope="module")
def checkpoint(golden_dir):
    return golden_dir / "in" / "tiny_sd15_fp16.safetensors"


@pytest.fixture(scope="module")
def model(checkpoint):
    return families.load(checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def diffusers_unet(checkpoint):
    """The same weights in diffusers' own U-Net."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models import UNet2DConditionModel
    from safetensors.torch import load_file

    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 96, 96), cross_attention_dim=48, attention_head_dim=8, sample_size=64
    )
    tensors = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(tensors, unet.config))
    return unet.eval()


def latents_of(model, **request) -> torch.Tensor:
    return sampling.sample(model, engine.resolve(model, Request(**{**SMALL, **request}))).final


SMALL = {
    "prompt": "a photo of a cat",
    "negative": "blurry",
    "width": 64,
    "height": 96,
    "steps": 4,
    "seed": 11,
}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    "sampler, cls, options",
    [
        ("ddim", "DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
        ("pndm", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
        ("euler_a", "EulerAncestralDiscreteScheduler", {}),
        ("heun", "HeunDiscreteScheduler", {}),
        ("dpmsolver++_karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("unipc", "UniPCMultistepScheduler", {}),
    ],
)
def test_equals_the_pipeline_of_diffusers(model, diffusers_unet, sampler, cls, options):
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=diffusers_unet,
        scheduler=getattr(diffusers, cls)(**SD, **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        negative, wanted = (
            model.encode_text(model.tokenize([SMALL[key]]))["hidden"] for key in ("negative", "prompt")
        )
    theirs = pipeline(
        prompt_embeds=wanted,
        negative_prompt_embeds=negative,
        width=64,
        height=96,
        num_inference_steps=4,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
    ).images
    ours = latents_of(model, sampler=sampler)
    assert ours.shape == (1, 4, 12, 8)
    assert (ours - theirs).abs().max() < 1e-3


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_every_sampler_runs_and_batches_agree(model, sampler):
    both = latents_of(model, sampler=sampler, count=2, batch=2)
    assert bool(torch.isfinite(both).all())
    second = latents_of(model, sampler=sampler, seed=12)
    scale = float(both.abs().max())
    assert (both[1] - second[0]).abs().max() / scale < 1e-4


def test_batch_of_four_equals_four_alone(model):
    together = latents_of(model, sampler="euler_a", count=4, batch=4)
    for index in range(4):
        alone = latents_of(model, sampler="euler_a", seed=11 + index)
        assert (together[index] - alone[0]).abs().max() / alone.abs().max() < 1e-4


def test_strength_goes_from_nothing_to_all(model, golden_dir):
    weights, _ = networks.read_lora(golden_dir / "in" / "lora_a.safetensors")
    network = networks.from_weights(weights, list(model.adapter_modules()))
    without = latents_of(model)
    network.attach()
    try:
        found = {}
        for strength in (0.0, 0.5, 1.0):
            network.strength = strength
            found[strength] = latents_of(model)
    finally:
        network.detach()
    assert torch.allclose(found[0.0], without, atol=1e-5)
    half, full = ((found[s] - without).norm() for s in (0.5, 1.0))
    assert 0.1 * full < half < full
    assert torch.equal(latents_of(model), without)


def test_pictures_are_pixels_of_the_asked_size(model):
    request = Request(**{**SMALL, "steps": 2})
    image = engine.generate(model, [request])[0]
    assert image.size == (64, 96) and image.mode == "RGB"
    assert np.asarray(image).std() > 1
    assert engine.generate(model, [request])[0].tobytes() == image.tobytes()


def test_long_prompts_are_cut_with_a_note_or_read_in_chunks(model):
    text = "cat " * 200
    (cut,) = engine.resolve(model, Request(**{**SMALL, "prompt": text}))
    assert "200 tokens" in " ".join(cut.notes)
    (long,) = engine.resolve(model, Request(**{**SMALL, "prompt": text, "max_token_length": 225}))
    assert long.notes == ()
    short, whole = (sampling.sample(model, [each]).final for each in (cut, long))
    assert not torch.allclose(short, whole, atol=1e-3)
