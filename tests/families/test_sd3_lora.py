"""A LoRA for SD 3 here and in diffusers: the same names, and the same change of the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend import families, networks
from backend.families.sd3.model import StableDiffusion3
from backend.networks import dialects
from backend.networks.base import NetworkSpec
from tests.families.sd3_kit import MEDIUM, MEDIUM35, Kind, build
from tests.families.test_sd3 import from_diffusers, reference_transformer

pytest.importorskip("peft", reason="diffusers loads a LoRA with peft")


def model_like(reference: Any, kind: Kind, folder: Path) -> StableDiffusion3:
    """The small model with the transformer of diffusers."""
    model = families.load(build(folder / "x.safetensors", kind))
    assert isinstance(model, StableDiffusion3)
    model.denoiser.load_state_dict(from_diffusers(reference.state_dict()))
    return model


def trained(model: StableDiffusion3, **args: str) -> networks.Network:
    """A LoRA with weights that do something, as after a training."""
    modules = [*model.adapter_modules(), *model.further_modules()]
    sites = [site for site in modules if site.part == "unet"]
    network = networks.create("networks.lora", sites, NetworkSpec(dim=4, alpha=2, args=args), seed=1)
    assert isinstance(network, nn.Module)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("lora_up.weight"):
                generator = torch.Generator().manual_seed(len(name))
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
                if parameter.shape[1] == 12:  # three pairs side by side
                    parameter.mul_(torch.block_diag(*[torch.ones(parameter.shape[0] // 3, 4)] * 3))
    return network


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (MEDIUM, {}),
        (MEDIUM35, {"emb_dims": "4,4,4,4,4,4"}),
        (MEDIUM35, {"split_qkv": "True", "train_block_indices": "1,3"}),
    ],
)
def test_diffusers_draws_the_same_with_it(kind: Kind, args: dict[str, str], tmp_path: Path) -> None:
    reference = reference_transformer(kind)
    model = model_like(reference, kind, tmp_path)
    network = trained(model, **args)
    generator = torch.Generator().manual_seed(2)
    latents, context = (
        torch.randn(2, 16, 8, 8, generator=generator),
        torch.randn(2, 9, 96, generator=generator),
    )
    pooled, timesteps = torch.randn(2, 80, generator=generator), torch.tensor([900.0, 30.0])
    weights = dialects.to_diffusers(network.file_weights())
    report = reference.load_lora_adapter(
        {k.removeprefix("transformer."): v for k, v in weights.items()}, prefix=None
    )
    assert not report or not (report.missing_keys or report.unexpected_keys)
    injected = sum(".lora_A." in name for name, _ in reference.named_parameters())
    assert injected == sum(".lora_A." in name for name in weights)  # every one found its layer
    with torch.no_grad():
        plain = model.transformer(latents, timesteps, context, pooled)
        network.attach()
        ours = model.transformer(latents, timesteps, context, pooled)
        theirs = reference(latents, context, pooled, timesteps).sample
    assert not torch.allclose(ours, plain, atol=1e-2)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_diffusers_names_are_read(tmp_path: Path) -> None:
    model = families.load(build(tmp_path / "x.safetensors", MEDIUM35))
    assert isinstance(model, StableDiffusion3)
    network = trained(model, emb_dims="2,2,2,2,2,2")
    sites = [*model.adapter_modules(), *model.further_modules()]
    theirs = networks.from_weights(dialects.to_diffusers(network.file_weights()), sites)
    text = model.encode_text(model.tokenize(["a cat"]))
    noisy, time = torch.randn(1, 16, 8, 8), torch.tensor([400.0])

    def output(with_network: networks.Network) -> Tensor:
        with_network.attach()
        with torch.no_grad():
            found = model.predict(noisy, time, text)
        with_network.detach()
        return found

    torch.testing.assert_close(output(theirs), output(network), atol=1e-4, rtol=1e-4)


def test_a_kohya_file_loads_whole(tmp_path: Path) -> None:
    """Names as sd-scripts writes them, text encoders and T5 included."""
    model = families.load(build(tmp_path / "x.safetensors", MEDIUM))
    sites = list(model.adapter_modules())
    assert {site.part for site in sites} == {"te1", "te2", "te3", "unet"}
    file = networks.create("networks.lora", sites, NetworkSpec(dim=2, alpha=1)).file_weights()
    assert "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight" in file
    assert "lora_te3_encoder_block_1_layer_1_DenseReluDense_wi_1.alpha" in file
    loaded = networks.from_weights(file, sites)
    assert set(loaded.weights()) == set(file)
