"""Names and shapes of a whole SD 3 checkpoint, from its dimensions alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from backend.families.parts import names as parts_names
from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.layout import original_shape
from backend.families.parts.skeleton import skeleton
from backend.families.parts.vae import Vae, VaeShape
from backend.families.sd3.load import Shapes
from backend.families.sd3.mmdit import MMDiT, MMDiTShape
from backend.families.sd3.t5 import T5Encoder, T5Shape
from backend.families.sd3.weights import PREFIXES

CLIP_L = ClipShape(projection=768)
CLIP_G = ClipShape(width=1280, inner=5120, layers=32, heads=20, activation="gelu", projection=1280)
VAE = VaeShape(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, quant=False)
TRANSFORMERS: Mapping[str, MMDiTShape] = {
    "medium": MMDiTShape(),
    "5-medium": MMDiTShape(grid=384, qk_norm=True, dual=frozenset(range(13))),
    "5-large": MMDiTShape(width=2432, depth=38, heads=38, inner=9728, qk_norm=True),
}
"""By the name that metadata give the model."""


def published(model: str) -> Shapes:
    """Dimensions of ``medium``, ``5-medium`` or ``5-large``, with T5."""
    return Shapes(TRANSFORMERS[model], CLIP_L, CLIP_G, VAE, T5Shape())


def skeletons(shapes: Shapes) -> dict[str, nn.Module]:
    """The modules of all parts, without memory."""
    text = shapes.t5xxl
    return {
        "transformer": skeleton(lambda: MMDiT(shapes.transformer)),
        "clip_l": skeleton(lambda: ClipTextModel(shapes.clip_l)),
        "clip_g": skeleton(lambda: ClipTextModel(shapes.clip_g)),
        **({"t5xxl": skeleton(lambda: T5Encoder(text))} if text else {}),
        "vae": skeleton(lambda: Vae(shapes.vae)),
    }


def original_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Original single-file name -> shape of every tensor."""
    found: dict[str, tuple[int, ...]] = {}
    for part, module in skeletons(shapes).items():
        state = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        renamed = parts_names.vae_to_original(list(state)) if part == "vae" else {n: n for n in state}
        for name, shape in state.items():
            found[PREFIXES[part] + renamed[name]] = original_shape(f"{part}.{name}", shape)
    return found
