"""CLIP's text transformer (Radford et al. 2021), with transformers' parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.families.parts.checkpointing import Checkpointed

HEAD_SIZE = 64
"""Numbers a head in every CLIP text encoder that was published."""


@dataclass(frozen=True)
class ClipShape:
    """Dimensions of a text encoder."""

    width: int = 768
    inner: int = 3072
    layers: int = 12
    heads: int = 12
    vocabulary: int = 49408
    positions: int = 77
    activation: str = "quick_gelu"
    """``quick_gelu`` or ``gelu``."""


def quick_gelu(x: Tensor) -> Tensor:
    """GELU as OpenAI's CLIP approximates it: ``x * sigmoid(1.702 x)``."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class ClipAttention(nn.Module):
    """Causal self-attention."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.k_proj = nn.Linear(shape.width, shape.width)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class ClipMlp(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[shape.activation]
        self.fc1 = nn.Linear(shape.width, shape.inner)
        self.fc2 = nn.Linear(shape.inner, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class ClipLayer(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.self_attn = ClipAttention(shape)
        self.layer_norm1 = nn.LayerNorm(shape.width)
        self.mlp = ClipMlp(shape)
        self.layer_norm2 = nn.LayerNorm(shape.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.position_embedding = nn.Embedding(shape.positions, shape.width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[-1]]


class ClipEncoder(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(shape) for _ in range(shape.layers)])


class ClipTextTransformer(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(shape)
        self.encoder = ClipEncoder(shape)
        self.final_layer_norm = nn.LayerNorm(shape.width)


class ClipTextModel(Checkpointed):
    """The text encoder: ids (B, L) int64 -> hidden states (B, L, width)."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.shape = shape
        self.text_model = ClipTextTransformer(shape)

    def forward(self, ids: Tensor, last: int = 1) -> Tensor:
        """Hidden states after the ``last``-th layer from the end (1: the last), then the final norm."""
        layers = self.text_model.encoder.layers
        assert 1 <= last <= len(layers) + 1, f"clip_skip {last} with {len(layers)} layers"
        x = self.text_model.embeddings(ids)
        for layer in layers[: len(layers) + 1 - last]:
            x = self.run(layer, x)
        return self.text_model.final_layer_norm(x)


def clip_shape(
    shapes: Mapping[str, Sequence[int]], heads: int | None = None, activation: str = "quick_gelu"
) -> ClipShape:
    """Dimensions read from ``shapes`` (parameter name -> shape); heads of 64 numbers unless given."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    layers = {name.split(".")[3] for name in shapes if name.startswith("text_model.encoder.layers.")}
    return ClipShape(
        width=width,
        inner=shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        layers=len(layers),
        heads=heads or max(1, width // HEAD_SIZE),
        vocabulary=vocabulary,
        positions=shapes["text_model.embeddings.position_embedding.weight"][0],
        activation=activation,
    )
