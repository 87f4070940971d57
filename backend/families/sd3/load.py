"""Loading SD 3 and 3.5: dimensions from the weights, modules made without memory, tensors put in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import InputError, Problem
from backend.families.base import Source
from backend.families.options import LoadOptions
from backend.families.parts.clip import ACTIVATIONS, ClipShape, ClipTextModel, clip_shape
from backend.families.parts.loading import fill
from backend.families.parts.vae import Vae, VaeShape, vae_shape
from backend.families.parts.weights import complete
from backend.families.sd3.mmdit import MMDiT, MMDiTShape, mmdit_shape
from backend.families.sd3.model import StableDiffusion3, TextParts
from backend.families.sd3.positions import Positions, training_sizes
from backend.families.sd3.swap import PLACES, BlockSwap
from backend.families.sd3.t5 import T5Encoder, T5Shape, t5_shape
from backend.families.sd3.weights import TITLES, Files, Weights, find_weights
from backend.system.identify import require_base

ACTIVATION = {"clip_l": "quick_gelu", "clip_g": "gelu"}
SCALING_FACTOR = 1.5305
SHIFT_FACTOR = 0.0609


@dataclass(frozen=True)
class Shapes:
    """Dimensions of all parts; ``t5xxl`` None: there is none."""

    transformer: MMDiTShape
    clip_l: ClipShape
    clip_g: ClipShape
    vae: VaeShape
    t5xxl: T5Shape | None = None


def load(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: Path | None = None,
    v_prediction: bool | None = None,
    options: LoadOptions | None = None,
) -> StableDiffusion3:
    """Load a single file or diffusers folder, with own files for parts that it lacks.

    Weights whose type in the file is ``dtype`` stay in the memory-mapped file, others are converted
    one at a time. All but the VAE goes to ``device``, T5 where the options say, and blocks that are
    swapped stay in host memory. T5 is optional; without it the transformer is given zeros.

    Raises:
        InputError: not an SD 3 base model, a part is missing, shapes do not fit, values are not finite,
            or ``v_prediction`` is asked for.
    """
    options = options or LoadOptions()
    require_base(path, ("sd3",))
    if v_prediction:
        raise InputError(
            "SD 3 predicts the velocity of a flow; v-prediction is another thing",
            next="switch v_parameterization off",
            key="v_parameterization",
        )
    files = Files(options.clip_l, options.clip_g, options.t5xxl, vae)
    weights = find_weights(path, files, dtype, options.mmap)
    shapes = model_shapes(weights)
    transformer = _transformer(shapes.transformer, weights, dtype, options)
    model = StableDiffusion3(
        transformer,
        TextParts(*_text_parts(shapes, weights, dtype, options)),
        fill(lambda: Vae(shapes.vae), weights, "vae", dtype),
        Source(path, weights.metadata),
        weights,
        options,
    )
    place(model, torch.device(device))
    return model


def place(model: StableDiffusion3, device: torch.device) -> None:
    """Bring a loaded model to its device, and begin to swap blocks where that is asked for."""
    asked, blocks = model.options.blocks_to_swap, model.transformer.joint_blocks
    count = min(asked, len(blocks) - PLACES)
    if count < asked:
        text = f"blocks_to_swap {asked} is lowered to {count}: this model has {len(blocks)} blocks"
        model.notes += (text,)
    if count and device.type != "cpu":
        model.transformer.swap = BlockSwap(list(blocks), count, device)
    if device.type != "cpu":
        model.to(device)


def _transformer(shape: MMDiTShape, weights: Weights, dtype: torch.dtype, options: LoadOptions) -> MMDiT:
    transformer = fill(lambda: MMDiT(shape), weights, "transformer", dtype)
    if options.enable_scaled_pos_embed:
        transformer.positions = Positions(shape.grid, training_sizes(options.sizes or ((1024, 1024),)))
    return transformer


def _text_parts(
    shapes: Shapes, weights: Weights, dtype: torch.dtype, options: LoadOptions
) -> tuple[ClipTextModel, ClipTextModel, T5Encoder | None]:
    clip_l = fill(lambda: ClipTextModel(shapes.clip_l), weights, "clip_l", dtype)
    clip_g = fill(lambda: ClipTextModel(shapes.clip_g), weights, "clip_g", dtype)
    if shapes.t5xxl is None:
        return clip_l, clip_g, None
    shape = shapes.t5xxl
    return clip_l, clip_g, fill(lambda: T5Encoder(shape), weights, "t5xxl", options.t5xxl_dtype or dtype)


def model_shapes(weights: Weights) -> Shapes:
    """Dimensions from the weights' shapes; SD 3's rule for the rest unless a configuration is there.

    Raises:
        InputError: tensors that tell a dimension are missing, or parts do not fit each other.
    """
    vae = weights.config.get("vae", {})
    with complete(weights.path):
        heads = weights.config.get("transformer", {}).get("num_attention_heads")
        shapes = Shapes(
            mmdit_shape(weights.shapes("transformer"), heads),
            _clip_shape(weights, "clip_l"),
            _clip_shape(weights, "clip_g"),
            vae_shape(
                weights.shapes("vae"),
                norm_groups=int(vae.get("norm_num_groups") or 32),
                scaling_factor=float(vae.get("scaling_factor") or SCALING_FACTOR),
                shift_factor=float(SHIFT_FACTOR if vae.get("shift_factor") is None else vae["shift_factor"]),
            ),
            t5_shape(weights.shapes("t5xxl")) if weights.part("t5xxl") else None,
        )
    _check(weights.path, shapes)
    return shapes


def _clip_shape(weights: Weights, part: str) -> ClipShape:
    config, shapes = weights.config.get(part, {}), weights.shapes(part)
    activation = str(config.get("hidden_act") or ACTIVATION[part])
    return clip_shape(shapes, heads=config.get("num_attention_heads"), activation=activation)


def _check(path: Path, shapes: Shapes) -> None:
    """Parts of one model fit each other; another VAE or text encoder is named for what it is."""
    transformer, text = shapes.transformer, shapes.clip_l.width + shapes.clip_g.width
    pooled = (shapes.clip_l.projection or 0) + (shapes.clip_g.projection or 0)
    pairs = [
        ("the VAE", "channels", shapes.vae.latent_channels, transformer.in_channels, "vae"),
        ("CLIP-L and CLIP-G together", "pooled numbers", pooled, transformer.pooled_width, "clip_g"),
    ]
    if shapes.t5xxl is not None:
        width = shapes.t5xxl.width
        pairs.append(("T5", "numbers a token", width, transformer.context_width, "t5xxl"))
    odd = [
        Problem(f"{who} has {given} {what}, the transformer reads {read}", where=str(path), key=key,
                next="choose the file that belongs to SD 3")
        for who, what, given, read, key in pairs if given != read
    ]  # fmt: skip
    if text > transformer.context_width:
        odd.append(Problem(f"CLIP-L and CLIP-G give {text} numbers a token, too many", where=str(path)))
    divisions = [
        ("transformer heads", transformer.width, transformer.heads, "transformer"),
        *((f"{TITLES[part]} heads", clip.width, clip.heads, part)
          for part, clip in (("clip_l", shapes.clip_l), ("clip_g", shapes.clip_g))),
        *(("VAE norm groups", width, shapes.vae.norm_groups, "vae") for width in shapes.vae.widths),
    ]  # fmt: skip
    odd += [
        Problem(f"{what}: {count} do not divide the width {width}", where=str(path),
                why="the configuration does not belong to these weights")
        for what, width, count, _ in divisions if width % count
    ]  # fmt: skip
    for clip in (shapes.clip_l, shapes.clip_g):
        if clip.activation not in ACTIVATIONS:
            odd.append(Problem(f"text encoder activation {clip.activation!r} is unknown", where=str(path)))
    if odd:
        raise InputError(odd)
