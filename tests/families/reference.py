"""diffusers' and transformers' own networks with the weights of ours."""

from __future__ import annotations

from typing import Any

import torch

from backend.families.parts.clip import ClipTextModel
from backend.families.parts.latent import LatentDiffusion


def sample(seed: int, *shape: int) -> torch.Tensor:
    """Normal numbers by a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference_unet(model: LatentDiffusion) -> Any:
    """diffusers' U-Net of the same dimensions."""
    from diffusers import UNet2DConditionModel

    shape = model.unet.shape
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in shape.depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(shape.depths)]
    label: dict[str, Any] = {}
    if shape.label_width:
        label = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": shape.label_width,
        }
    unet = UNet2DConditionModel(
        block_out_channels=shape.widths,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=shape.context_width,
        attention_head_dim=shape.level_heads,
        norm_num_groups=shape.norm_groups,
        use_linear_projection=shape.linear,
        transformer_layers_per_block=tuple(max(1, depth) for depth in shape.depths),
        **label,
    )
    unet.load_state_dict(model.unet.state_dict(), strict=True)
    return unet.eval()


def reference_text(text: ClipTextModel) -> Any:
    """transformers' text encoder of the same dimensions."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    shape = text.shape
    config = CLIPTextConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_attention_heads=shape.heads,
        num_hidden_layers=shape.layers,
        hidden_act=shape.activation,
        projection_dim=shape.projection or 512,
        eos_token_id=49407,
    )
    state = text.state_dict()
    if shape.projection is None:
        model = CLIPTextModel(config)
        state = {name.removeprefix("text_model."): value for name, value in state.items()}
    else:
        model = CLIPTextModelWithProjection(config)
    model.load_state_dict(state, strict=True)
    return model.eval()
