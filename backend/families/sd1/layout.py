"""Names and shapes of a whole SD 1.x checkpoint, from its dimensions alone."""

from __future__ import annotations

from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.layout import whole_shapes
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape
from backend.families.sd1.keys import LAYOUT


def original_shapes(unet: UNetShape, text: ClipShape, vae: VaeShape) -> dict[str, tuple[int, ...]]:
    """Original single-file name -> shape of every tensor (1130 of them at SD 1.x's depth)."""
    modules = {
        "unet": skeleton(lambda: UNet(unet)),
        "text_encoder": skeleton(lambda: ClipTextModel(text)),
        "vae": skeleton(lambda: Vae(vae)),
    }
    return whole_shapes(LAYOUT, modules)
