"""CLIP's text transformer (Radford et al. 2021), with transformers' parameter names.

One network for CLIP-L, OpenCLIP-H and OpenCLIP-bigG: they differ in dimensions, activation and in
whether they have a projection for the pooled output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.families.parts.checkpointing import Checkpointed

HEAD_SIZE = 64
"""Numbers a head in every CLIP text encoder that was published."""

END_ID = 49407
"""Id of the token that ends a text; the pooled output is read at the first of them."""


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
    projection: int | None = None
    """Width of the pooled output; None where there is no projection."""


class TextStates(NamedTuple):
    """What a text encoder gives for ids (B, L)."""

    hidden: Tensor
    """(B, L, width)."""
    pooled: Tensor
    """(B, projection): the whole text in one vector."""


def quick_gelu(x: Tensor) -> Tensor:
    """GELU as OpenAI's CLIP approximates it: ``x * sigmoid(1.702 x)``."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class ClipAttention(nn.Module):
    """Causal self-attention; ``mask`` (B, 1, L, L), True where a token is seen, adds to that."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.k_proj = nn.Linear(shape.width, shape.width)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
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
    """The text encoder: ids (B, L) int64 -> hidden states (B, L, width), and a pooled output where
    it has a projection.

    ``counts`` (B, L) bool, where given, is False at padding that the other tokens must not see.
    """

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.shape = shape
        self.text_model = ClipTextTransformer(shape)
        if shape.projection is not None:
            self.text_projection = nn.Linear(shape.width, shape.projection, bias=False)

    def forward(self, ids: Tensor, last: int = 1, norm: bool = True, counts: Tensor | None = None) -> Tensor:
        """Hidden states after the ``last``-th layer from the end (1: the last).

        ``norm``: the final norm is applied to them, as SD 1.x and 2.x want it; SDXL and SD 3 do not.
        """
        states = self._states(ids, self._depth(last), counts)
        return self.text_model.final_layer_norm(states) if norm else states

    def encode(self, ids: Tensor, last: int = 2, counts: Tensor | None = None) -> TextStates:
        """Hidden states without the final norm, and the pooled output of the last layer.

        The latter is the normed last state at the first end token, through the projection.
        """
        assert self.shape.projection is not None, "this text encoder has no projection"
        depth, layers = self._depth(last), self.text_model.encoder.layers
        hidden = self._states(ids, depth, counts)
        final = self._run(hidden, layers[depth:], _causal(counts))
        ends = (ids == END_ID).int().argmax(dim=-1)
        rows = torch.arange(len(ids), device=ids.device)
        normed = self.text_model.final_layer_norm(final[rows, ends])
        return TextStates(hidden, self.text_projection(normed))

    def _depth(self, last: int) -> int:
        layers = len(self.text_model.encoder.layers)
        assert 1 <= last <= layers + 1, f"clip_skip {last} with {layers} layers"
        return layers + 1 - last

    def _states(self, ids: Tensor, depth: int, counts: Tensor | None) -> Tensor:
        x = self.text_model.embeddings(ids)
        return self._run(x, self.text_model.encoder.layers[:depth], _causal(counts))

    def _run(self, x: Tensor, layers: Iterable[nn.Module], mask: Tensor | None) -> Tensor:
        for layer in layers:
            x = self.run(layer, x, mask)
        return x


def _causal(counts: Tensor | None) -> Tensor | None:
    """(B, 1, L, L): what each token sees when padding is hidden; None where causality is all."""
    if counts is None:
        return None
    length = counts.shape[-1]
    before = torch.ones(length, length, dtype=torch.bool, device=counts.device).tril()
    return before & counts[:, None, None, :].bool()


def clip_shape(
    shapes: Mapping[str, Sequence[int]], heads: int | None = None, activation: str = "quick_gelu"
) -> ClipShape:
    """Dimensions read from ``shapes`` (parameter name -> shape); heads of 64 numbers unless given."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    layers = {name.split(".")[3] for name in shapes if name.startswith("text_model.encoder.layers.")}
    projection = shapes.get("text_projection.weight")
    return ClipShape(
        width=width,
        inner=shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        layers=len(layers),
        heads=heads or max(1, width // HEAD_SIZE),
        vocabulary=vocabulary,
        positions=shapes["text_model.embeddings.position_embedding.weight"][0],
        activation=activation,
        projection=None if projection is None else projection[0],
    )
