"""Whole trainings of ControlNet-LLLite, in this process."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from backend.system.identify import identify
from tests.e2e.conftest import events
from tests.e2e.workshop import LLLITE, Workshop, typed

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("own_signals", "a_process_of_its_own")]


def test_a_guide_is_learnt_with_text_cached_and_steers_a_sample(shop: Workshop) -> None:
    guide = next(shop.guides.glob("*.png"))
    prompts = shop.home / "prompts.txt"
    prompts.write_text(
        f"a shape --w 64 --h 64 --s 2 --d 3 --cn {guide}\na shape --w 64 --h 64 --s 2 --d 3\n",
        encoding="utf-8",
    )
    options = {
        "sample_prompts": prompts,
        "sample_every_n_steps": 4,
        "max_train_steps": 4,
        "learning_rate": "5e-2",
    }
    assert (
        shop.train(
            LLLITE,
            output_name="lines",
            cache_text_encoder_outputs=True,
            gradient_checkpointing=True,
            training_comment="by hand",
            **options,
        )
        == 0
    )
    run, path = shop.runs()[-1], shop.out("lines.safetensors")
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/control-net-lllite"
    assert metadata["ss_training_comment"] == "by hand" and metadata["ss_learning_rate"] == "0.05"
    assert not [key for key in metadata if "network" in key], "by which other programs tell a LoRA"
    assert identify(path).kind == "lllite"
    assert all(name.startswith("lllite_unet_") for name in names)
    with_guide, without = ((run / record["path"]).read_bytes() for record in events(run, "sample"))
    assert with_guide != without
    assert any("without a guide picture" in record["text"] for record in events(run, "note"))
    on = {"network_weights": path, "max_train_steps": 1, "no_metadata": True}
    assert shop.train(LLLITE, output_name="lines2", **on) == 0
    with safe_open(shop.out("lines2.safetensors"), "pt") as file:
        assert all(key.startswith("modelspec.") for key in file.metadata())
    assert shop.train(LLLITE, output_name="lines3", network_weights=path, network_dim=8) == 2


SETTINGS = """
pretrained_model_name_or_path = "{shop.sdxl}"
max_train_epochs = 12
max_data_loader_n_workers = 4
persistent_data_loader_workers = true
seed = 42
gradient_checkpointing = true
mixed_precision = "bf16"
save_precision = "bf16"
full_bf16 = true
optimizer_type = "adamw8bit"
learning_rate = 2e-4
xformers = true
output_dir = "{shop.home}/out"
output_name = "output_name"
save_every_n_epochs = 1
save_model_as = "safetensors"
vae_batch_size = 4
cache_latents = true
cache_latents_to_disk = true
cache_text_encoder_outputs = true
cache_text_encoder_outputs_to_disk = true
network_dim = 64
cond_emb_dim = 32
dataset_config = "{shop.home}/dataset.toml"
"""
"""Those of LLLite's own document, with other paths."""


DATASET = """
[general]
resolution = 64
caption_extension = ".txt"
[[datasets]]
batch_size = 2
  [[datasets.subsets]]
  image_dir = "{shop.pictures}/2_sks shape"
  conditioning_data_dir = "{shop.guides}"
"""


def test_settings_of_the_documents_run_as_they_are(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shop.home / "run.toml"
    config.write_text(SETTINGS.format(shop=shop), encoding="utf-8")
    (shop.home / "dataset.toml").write_text(DATASET.format(shop=shop), encoding="utf-8")
    line = ["--config_file", str(config), "--allow_fallback", "--max_train_epochs", "1"]
    assert typed(monkeypatch, LLLITE, line) == 0
    weights = load_file(shop.out("output_name.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert len(events(shop.runs()[-1], "step")) == 2
