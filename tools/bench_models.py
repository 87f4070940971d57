"""Models with random weights, built on the device itself: for measuring, and for nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from backend.demo.tiny import TINY_SDXL, TINY_TEXT, TINY_UNET, TINY_VAE
from backend.families.base import DiffusionModel, Source
from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.loading import Loaded
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape
from backend.families.sd1.model import StableDiffusion1
from backend.families.sd3.mmdit import MMDiT, MMDiTShape
from backend.families.sd3.model import StableDiffusion3, TextParts
from backend.families.sdxl import layout as sdxl
from backend.families.sdxl.model import StableDiffusionXL

Module = TypeVar("Module", bound=nn.Module)
Device = torch.device | str

NOWHERE = Source(Path("random"))
_SD3_VAE = VaeShape(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, quant=False)


def build(family: str, full: bool, dtype: torch.dtype, device: Device) -> DiffusionModel:
    """A model of a family in its real width, or a narrow one; the VAE computes in ``dtype`` as well."""
    return _BUILDERS[family](full, dtype, device)


def _sd1(full: bool, dtype: torch.dtype, device: Device) -> DiffusionModel:
    unet = UNetShape() if full else TINY_UNET
    texts = {"text_encoder": ClipShape() if full else TINY_TEXT}
    parts = _loaded(unet, texts, VaeShape() if full else TINY_VAE, dtype, device)
    return StableDiffusion1(
        parts.unet, parts.texts["text_encoder"], parts.vae, "epsilon", NOWHERE, parts.weights
    )


def _sdxl(full: bool, dtype: torch.dtype, device: Device) -> DiffusionModel:
    unet = sdxl.FULL_UNET if full else TINY_SDXL.unet
    wide = {"text_encoder": sdxl.FULL_TEXT, "text_encoder_2": sdxl.FULL_TEXT_2}
    vae = sdxl.FULL_VAE if full else TINY_SDXL.vae
    loaded = _loaded(unet, wide if full else TINY_SDXL.texts, vae, dtype, device)
    return StableDiffusionXL(loaded, "epsilon", NOWHERE)


def _sd3(full: bool, dtype: torch.dtype, device: Device) -> DiffusionModel:
    """SD 3.5 medium, without the T5, whose place zeros take."""
    dual = frozenset(range(13 if full else 1))
    shape = MMDiTShape(qk_norm=True, dual=dual, grid=384)
    vae = _SD3_VAE
    if not full:
        shape = replace(shape, width=64, depth=2, heads=4, inner=128, grid=48)
        vae = replace(vae, widths=(16, 16, 32, 32), layers=1, norm_groups=8)
    small = ClipShape(width=48, inner=64, layers=2, heads=4)
    clip_l = replace(ClipShape() if full else small, projection=768)
    clip_g = replace(sdxl.FULL_TEXT_2 if full else small, activation="gelu", projection=1280)

    def make(kind: Callable[[], Module]) -> Module:
        return _filled(kind, dtype, device)

    texts = TextParts(make(lambda: ClipTextModel(clip_l)), make(lambda: ClipTextModel(clip_g)), None)
    return StableDiffusion3(
        make(lambda: MMDiT(shape)), texts, make(lambda: Vae(vae)), NOWHERE, cast("Any", None)
    )


def _loaded(
    unet: UNetShape, texts: Mapping[str, ClipShape], vae: VaeShape, dtype: torch.dtype, device: Device
) -> Loaded:
    made = {
        name: _filled(lambda shape=shape: ClipTextModel(shape), dtype, device)
        for name, shape in texts.items()
    }
    made_unet, made_vae = _filled(lambda: UNet(unet), dtype, device), _filled(lambda: Vae(vae), dtype, device)
    return Loaded(made_unet, made, made_vae, cast("Any", None))


def _filled(make: Callable[[], Module], dtype: torch.dtype, device: Device) -> Module:
    """A module whose tensors are made where they are used, of a size that keeps numbers finite."""
    module = skeleton(make).to(dtype).to_empty(device=device)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                tensor.zero_()
            elif tensor.dim() > 1:
                tensor.normal_(0.0, 1.0 / math.sqrt(math.prod(tensor.shape[1:])))
            else:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    return module.eval().requires_grad_(False)


_BUILDERS: Mapping[str, Callable[[bool, torch.dtype, Device], DiffusionModel]] = {
    "sd1": _sd1,
    "sdxl": _sdxl,
    "sd3": _sd3,
}
FAMILIES = tuple(_BUILDERS)
