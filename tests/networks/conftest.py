"""Small models of the SD 1.x shape, made with diffusers and transformers: an implementation that is
not ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn


class Site(NamedTuple):
    name: str
    part: str
    container: str
    module: nn.Module


@dataclass
class Model:
    unet: Any
    text: Any

    def sites(self) -> list[Site]:
        return [*_text_sites(self.text), *_unet_sites(self.unet)]

    def everything(self) -> list[Site]:
        """With what LyCORIS trains besides: edges, time embedding, norm layers."""
        return [*self.sites(), *_further_sites(self.unet)]

    def __call__(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """U-Net output and text output for fixed inputs; the U-Net sees the text."""
        draw = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 900, (2, 77), generator=draw)
        latents = torch.randn(2, 4, 8, 8, generator=draw)
        text = self.text(ids).last_hidden_state
        return self.unet(latents, torch.tensor([500, 20]), text).sample, text


def _text_sites(text: nn.Module) -> Iterator[Site]:
    for path, module in text.named_modules():
        if isinstance(module, nn.Linear) and ("self_attn" in path or ".mlp" in path):
            path = path if path.startswith("text_model.") else f"text_model.{path}"
            yield Site("te_" + path.replace(".", "_"), "text_encoder", "text", module)


def _unet_sites(unet: nn.Module) -> Iterator[Site]:
    containers = {
        "attentions": "attention",
        "resnets": "resnet",
        "downsamplers": "sampler",
        "upsamplers": "sampler",
    }
    for path, module in unet.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            for word, container in containers.items():
                if f".{word}." in path:
                    yield Site("unet_" + path.replace(".", "_"), "unet", container, module)


def _further_sites(unet: nn.Module) -> Iterator[Site]:
    for path, module in unet.named_modules():
        container = {"attentions": "attention_norm", "resnets": "resnet_norm"}
        found = [kind for word, kind in container.items() if f".{word}." in path]
        name = "unet_" + path.replace(".", "_")
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)) and found:
            yield Site(name, "unet", found[0], module)
        elif path in ("conv_in", "conv_out"):
            yield Site(name, "unet", "edge", module)
        elif path.startswith("time_embedding.linear"):
            yield Site(name, "unet", "time", module)


def build(channels: tuple[int, ...], width: int, inner: int, vocabulary: int) -> Model:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(block_out_channels=channels, cross_attention_dim=width, attention_head_dim=8)
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=12,
        num_attention_heads=12,
        eos_token_id=2,
    )
    return Model(unet.eval().requires_grad_(False), CLIPTextModel(config).eval().requires_grad_(False))


@pytest.fixture(scope="session")
def model() -> Model:
    """Narrow, with random weights. Tests leave it as they find it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build((32, 64, 96, 96), 48, 96, 1000)


@pytest.fixture(scope="session")
def full_width() -> Model:
    """SD 1.5's own sizes, without weights."""
    with torch.device("meta"):
        return build((320, 640, 1280, 1280), 768, 3072, 49408)
