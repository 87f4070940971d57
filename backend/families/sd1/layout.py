"""Names and shapes of a whole SD 1.x checkpoint, from its dimensions alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape
from backend.families.sd1 import keys


def original_shapes(unet: UNetShape, text: ClipShape, vae: VaeShape) -> dict[str, tuple[int, ...]]:
    """Original single-file name -> shape of every tensor (1130 of them at SD 1.x's depth)."""
    modules: Mapping[str, nn.Module] = {
        "unet": skeleton(lambda: UNet(unet)),
        "text_encoder": skeleton(lambda: ClipTextModel(text)),
        "vae": skeleton(lambda: Vae(vae)),
    }
    shapes = {
        f"{part}.{name}": tuple(tensor.shape)
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    names = keys.to_original(list(shapes))
    return {names[name]: original_shape(name, shape) for name, shape in shapes.items()}


def original_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the original layout: the VAE's attention is made of 1x1 convolutions there."""
    is_projection = name.startswith("vae.") and ".attentions." in name and len(shape) == 2
    return (*shape, 1, 1) if is_projection else shape
