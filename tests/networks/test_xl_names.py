"""LoRA files for SDXL that name the U-Net's blocks as diffusers does."""

from __future__ import annotations

import pytest
import torch

from backend import families, networks
from backend.demo.tiny import build_tiny_sdxl
from backend.families.base import DiffusionModel
from backend.families.parts.names import unet_to_diffusers
from backend.networks.dialects import normalised


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    path = tmp_path_factory.mktemp("xl") / "sdxl.safetensors"
    build_tiny_sdxl(path)
    return families.load(path)


def by_diffusers(name: str, paths: dict[str, str]) -> str:
    """A kohya name with the U-Net's module named by diffusers' path."""
    module, _, part = name.partition(".")
    return f"lora_unet_{paths[module]}.{part}" if module in paths else name


def test_blocks_of_diffusers_are_understood(model: DiffusionModel) -> None:
    spec = networks.NetworkSpec(dim=2, alpha=2.0, conv_dim=2)
    network = networks.create("networks.lora", list(model.adapter_modules()), spec, seed=0)
    weights = network.file_weights()
    original = [f"{path}.weight" for path in unet_paths(model)]
    paths = {
        f"lora_unet_{old[:-7].replace('.', '_')}": new[:-7].replace(".", "_")
        for old, new in unet_to_diffusers(original).items()
    }
    renamed = {by_diffusers(name, paths): tensor for name, tensor in weights.items()}
    assert not any("input_blocks" in name for name in renamed)
    assert set(normalised(renamed)) == set(weights)
    dotted = {
        f"unet.{new[:-7]}.lora_{letter}.weight": weights[
            f"lora_unet_{old[:-7].replace('.', '_')}.lora_{part}.weight"
        ]
        for old, new in unet_to_diffusers(original).items()
        for letter, part in (("A", "down"), ("B", "up"))
        if f"lora_unet_{old[:-7].replace('.', '_')}.lora_{part}.weight" in weights
    }
    loaded = networks.from_weights(dotted, list(model.adapter_modules()))
    assert not loaded.unused
    assert set(loaded.adapters()) == {name for name in network.adapters() if name.startswith("lora_unet")}


def unet_paths(model: DiffusionModel) -> list[str]:
    """Modules of the U-Net by the original layout's dotted paths."""
    from backend.families.parts.names import unet_to_original

    names = [name for name in model.denoiser.state_dict() if name.endswith(".weight")]
    return [name[:-7] for name in unet_to_original(names).values()]


def test_other_files_stay_as_they_are() -> None:
    sd1 = {"lora_unet_down_blocks_1_attentions_0_proj_in.alpha": torch.ones(())}
    assert set(normalised(sd1)) == set(sd1)
