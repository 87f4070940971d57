"""The original layout of SDXL, and names and shapes of a whole checkpoint from its dimensions."""

from __future__ import annotations

from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.layout import Layout, TextPart, whole_shapes
from backend.families.parts.loading import Rule
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape

SECOND = "conditioner.embedders.1.model."
LAYOUT = Layout(
    (
        TextPart("text_encoder", "conditioner.embedders.0.transformer."),
        TextPart("text_encoder_2", SECOND, open_clip=True),
    )
)
RULE = Rule({"text_encoder": "quick_gelu", "text_encoder_2": "gelu"}, linear=True, scaling_factor=0.13025)

FULL_UNET = UNetShape(
    widths=(320, 640, 1280), depths=(0, 2, 10), middle_depth=10, context_width=2048, heads=(5, 10, 20),
    linear=True, label_width=2816,
)  # fmt: skip
FULL_TEXT = ClipShape()
FULL_TEXT_2 = ClipShape(width=1280, inner=5120, layers=32, heads=20, activation="gelu", projection=1280)
FULL_VAE = VaeShape(scaling_factor=0.13025)


def original_shapes(
    unet: UNetShape, text: ClipShape, text_2: ClipShape, vae: VaeShape
) -> dict[str, tuple[int, ...]]:
    """Original single-file name -> shape of every tensor of the model and of what files have beside it."""
    modules = {
        "unet": skeleton(lambda: UNet(unet)),
        "text_encoder": skeleton(lambda: ClipTextModel(text)),
        "text_encoder_2": skeleton(lambda: ClipTextModel(text_2)),
        "vae": skeleton(lambda: Vae(vae)),
    }
    return {**whole_shapes(LAYOUT, modules), f"{SECOND}logit_scale": ()}
