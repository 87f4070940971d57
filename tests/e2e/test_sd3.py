"""SD 3 and 3.5 from the command line: train with and without caches, sample, resume, refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from backend import families, networks
from tests.e2e.conftest import World, events
from tests.families.sd3_kit import MEDIUM, MEDIUM35, build

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(make_world: Callable[[], World], tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("sd3-models")
    build(folder / "medium.safetensors", MEDIUM)
    return replace(make_world(), model=build(folder / "medium35.safetensors", MEDIUM35))


def train(world: World, **options: object) -> Path:
    """A run with sd-scripts' name of the script; returns the result's path."""
    name = str(options.get("output_name", "result"))
    fixed = {"max_train_steps": 2, "t5xxl_max_token_length": 24, "network_module": "networks.lora_sd3"}
    done = world.python("tools/sd3_train_network.py", *world.options(**{**fixed, **options}))
    assert done.returncode == 0, done.stdout + done.stderr
    return world.home / "out" / f"{name}.safetensors"


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(world: World, **options: object) -> list[float]:
    train(world, **options)
    return [record["loss"] for record in events(world.newest_run(), "step")]


def test_live_and_cached_text_train_the_same(world: World) -> None:
    """Masks, dropped encoders and moved positions act alike in both, and with T5's cache alone."""
    options = {
        "network_train_unet_only": True, "apply_lg_attn_mask": True, "apply_t5_attn_mask": True,
        "clip_l_dropout_rate": 0.4, "clip_g_dropout_rate": 0.4, "t5_dropout_rate": 0.4,
        "pos_emb_random_crop_rate": 0.5, "weighting_scheme": "logit_normal", "training_shift": 3.0,
    }  # fmt: skip
    live = losses(world, **options, cache_latents=None)
    assert losses(world, **options, cache_text_encoder_outputs=True) == pytest.approx(live, rel=1e-4)
    other = {"use_t5xxl_cache_only": True, "gradient_checkpointing": True, "blocks_to_swap": 1}
    assert losses(world, **options, **other) == pytest.approx(live, rel=1e-4)
    assert any("blocks_to_swap has no effect" in e["text"] for e in events(world.newest_run(), "note"))


def test_a_run_draws_resumes_and_says_how_it_was_made(world: World) -> None:
    options = {
        "sample_prompt_text": "a cat --w 64 --h 64 --s 2", "sample_every_n_steps": 2, "save_state_on_train_end": True,
        "network_args": ["verbose=True", "x_attn_dim=2", "emb_dims=[2,2,2,2,2,2]", "split_qkv=True"],
        "weighting_scheme": "sigma_sqrt", "text_encoder_lr": "1e-4",
    }  # fmt: skip
    result = train(world, **options, output_name="whole", max_train_steps=4)
    run = world.newest_run()
    samples = [run / record["path"] for record in events(run, "sample")]
    assert len(samples) == 2 and all(path.is_file() for path in samples)
    assert not events(run, "warning")
    with safe_open(result, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert (
        metadata["ss_base_model_version"] == "5-medium" and metadata["ss_network_module"] == "networks.lora"
    )
    assert metadata["modelspec.architecture"] == "stable-diffusion-3-5-medium/lora"
    assert metadata["ss_weighting_scheme"] == "sigma_sqrt" and metadata["ss_apply_t5_attn_mask"] == "False"
    assert {name.split("_")[1] for name in names} == {"te1", "te2", "unet"}  # T5 only when asked for
    assert load_file(result)["lora_unet_joint_blocks_0_x_block_attn2_qkv.lora_down.weight"].shape == (6, 64)

    train(world, **options, output_name="half", max_train_steps=2)
    state = next((world.home / "out").glob("half*-state"))
    resumed = train(world, **options, output_name="resumed", max_train_steps=4, resume=state)
    assert same(result, resumed)

    model = families.load(world.model)
    network = networks.from_weights(load_file(result), [*model.adapter_modules(), *model.further_modules()])
    assert set(network.weights()) == names


def test_t5_is_trained_when_asked_for(world: World) -> None:
    medium = world.model.with_name("medium.safetensors")
    result = train(
        world, pretrained_model_name_or_path=medium, output_name="t5", train_t5xxl=True, max_train_steps=1,
        text_encoder_lr="1e-3",
    )  # fmt: skip
    tensors = load_file(result)
    assert "lora_te3_encoder_block_1_layer_1_DenseReluDense_wo.lora_up.weight" in tensors
    assert any(
        tensor.abs().sum() > 0 for name, tensor in tensors.items() if "te3" in name and "lora_up" in name
    )


def test_what_makes_no_sense_is_refused_with_reasons(world: World) -> None:
    done = world.python(
        "tools/sd3_train_network.py",
        *world.options(noise_offset=0.1, min_snr_gamma=5, clip_skip=2, resolution="72"),
    )
    assert done.returncode == 2
    said = done.stdout + done.stderr
    for text in (
        "noise_offset has no use with SD 3.x",
        "this model learns a flow",
        "clip_skip has no use",
        "multiples of 16",
    ):
        assert text in said, said
