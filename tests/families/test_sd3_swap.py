"""Blocks of SD 3's transformer that wait in host memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backend import families, networks
from backend.families.options import LoadOptions
from backend.families.sd3.model import StableDiffusion3
from backend.families.sd3.swap import BlockSwap
from backend.networks.base import NetworkSpec
from tests.families.sd3_kit import MEDIUM35, build


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("swap") / "x.safetensors", MEDIUM35, torch.float32)


def gradients(model: StableDiffusion3) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients of a LoRA on all blocks, after a step with gradient checkpointing."""
    sites = [site for site in model.adapter_modules() if site.part == "unet"]
    network = networks.create("networks.lora", sites, NetworkSpec(dim=2, alpha=1), seed=1)
    assert isinstance(network, nn.Module)
    device = next(model.denoiser.parameters()).device
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_up" in name:
                draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                parameter.copy_(draw * 0.05)
    network.to(device).train()
    network.attach()
    model.enable_gradient_checkpointing()
    generator = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 16, 8, 8, generator=generator).to(device)
    text = {
        "clip_l": torch.randn(2, 77, 32, generator=generator), "clip_g": torch.randn(2, 77, 48, generator=generator),
        "pooled_l": torch.randn(2, 32, generator=generator), "pooled_g": torch.randn(2, 48, generator=generator),
    }  # fmt: skip
    output = model.predict(noisy, torch.tensor([900.0, 40.0], device=device), text)
    output.square().mean().backward()
    network.detach()
    return output.detach().cpu(), [p.grad.cpu() for p in network.parameters() if p.grad is not None]


def test_swapping_changes_nothing(file: Path) -> None:
    """On a device that is only called so: copies come and go as they do on a card."""
    plain = families.load(file)
    assert isinstance(plain, StableDiffusion3)
    expected, wanted = gradients(plain)
    swapped = families.load(file)
    assert isinstance(swapped, StableDiffusion3)
    blocks = list(swapped.transformer.joint_blocks)
    swap = BlockSwap(blocks, 2, torch.device("cpu"))
    swapped.transformer.swap = swap
    assert swap.first == 0 and swap.present == ()
    output, found = gradients(swapped)
    assert len(swap.present) == 2  # never more, and the rest is back in host memory
    torch.testing.assert_close(output, expected)
    assert len(found) == len(wanted) > 0
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_only_two_blocks_are_there_at_a_time(file: Path) -> None:
    model = families.load(file)
    assert isinstance(model, StableDiffusion3)
    blocks = list(model.transformer.joint_blocks)
    swap = BlockSwap(blocks, 1, torch.device("cpu"))
    host = {index: next(blocks[index].parameters()).data_ptr() for index in range(4)}
    assert swap.first == 1  # the first block stays for good
    for index in (0, 1, 2, 3, 3, 2, 1, 0):
        swap.require(index)
        there = {i for i in range(4) if next(blocks[i].parameters()).data_ptr() != host[i]}
        assert there == set(swap.present) and len(there) <= 2
        assert index == 0 or index in there


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
def test_on_a_card(file: Path) -> None:
    """The same numbers, less memory, and blocks fetched on a stream of their own."""
    device = torch.device("cuda")
    plain = families.load(file, device=device)
    assert isinstance(plain, StableDiffusion3)
    expected, wanted = gradients(plain)
    swapped = families.load(file, device=device, options=LoadOptions(blocks_to_swap=2))
    assert isinstance(swapped, StableDiffusion3) and swapped.transformer.swap is not None
    blocks = list(swapped.transformer.joint_blocks)
    assert {p.device.type for block in blocks for p in block.parameters()} == {"cpu"}
    assert next(swapped.denoiser.parameters()).device.type == "cuda"
    output, found = gradients(swapped)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
