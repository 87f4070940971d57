"""The original layout of SD 2.x, and names and shapes of a whole checkpoint from its dimensions."""

from __future__ import annotations

from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.layout import Layout, TextPart, whole_shapes
from backend.families.parts.loading import Rule
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape

PREFIX = "cond_stage_model.model."
LAYOUT = Layout((TextPart("text_encoder", PREFIX, open_clip=True, cut=True),))
RULE = Rule({"text_encoder": "gelu"}, linear=True)

FULL_UNET = UNetShape(heads=(5, 10, 20, 20), context_width=1024, linear=True)
FULL_TEXT = ClipShape(width=1024, inner=4096, layers=23, heads=16, activation="gelu")
FULL_VAE = VaeShape()


def original_shapes(unet: UNetShape, text: ClipShape, vae: VaeShape) -> dict[str, tuple[int, ...]]:
    """Original single-file name -> shape of every tensor of the model and of what files have beside it.

    ``text`` is the encoder as it is used; files hold one layer more, and a projection.
    """
    modules = {
        "unet": skeleton(lambda: UNet(unet)),
        "text_encoder": skeleton(lambda: ClipTextModel(text)),
        "vae": skeleton(lambda: Vae(vae)),
    }
    shapes = whole_shapes(LAYOUT, modules)
    for name, like in unused_layer(text.layers).items():
        shapes[name] = shapes[like]
    shapes[f"{PREFIX}text_projection"] = (text.width, text.width)
    shapes[f"{PREFIX}logit_scale"] = ()
    return shapes


def unused_layer(layers: int) -> dict[str, str]:
    """Names of the file's last layer, which the model leaves out -> those of the layer before."""
    leaves = [f"{norm}.{leaf}" for norm in ("ln_1", "ln_2") for leaf in ("weight", "bias")]
    leaves += [f"mlp.{part}.{leaf}" for part in ("c_fc", "c_proj") for leaf in ("weight", "bias")]
    leaves += ["attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"]
    start = f"{PREFIX}transformer.resblocks."
    return {f"{start}{layers}.{leaf}": f"{start}{layers - 1}.{leaf}" for leaf in leaves}
