"""T5's text encoder (Raffel et al. 2020, version 1.1 with gated GELU), with transformers' parameter names."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.data.emphasis import Part, parse
from backend.families.parts.checkpointing import Checkpointed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ASSET = Path(__file__).resolve().parent / "assets" / "t5_tokenizer.json.gz"
BUCKETS = 32
FARTHEST = 128
"""Tokens this far apart and farther share a bucket of relative positions."""


@dataclass(frozen=True)
class T5Shape:
    """Dimensions of an encoder."""

    width: int = 4096
    inner: int = 10240
    layers: int = 24
    heads: int = 64
    head_size: int = 64
    vocabulary: int = 32128
    buckets: int = BUCKETS


class T5Norm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(
            self.weight.dtype
        )


class T5Attention(nn.Module):
    """Attention without scaling; ``bias`` (1 or B, heads, L, L) holds positions and mask."""

    def __init__(self, shape: T5Shape, with_bias: bool) -> None:
        super().__init__()
        self.heads = shape.heads
        inner = shape.heads * shape.head_size
        self.q = nn.Linear(shape.width, inner, bias=False)
        self.k = nn.Linear(shape.width, inner, bias=False)
        self.v = nn.Linear(shape.width, inner, bias=False)
        self.o = nn.Linear(inner, shape.width, bias=False)
        if with_bias:
            self.relative_attention_bias = nn.Embedding(shape.buckets, shape.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))


class T5SelfAttention(nn.Module):
    def __init__(self, shape: T5Shape, with_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(shape, with_bias)
        self.layer_norm = T5Norm(shape.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class T5DenseGatedActDense(nn.Module):
    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(shape.width, shape.inner, bias=False)
        self.wi_1 = nn.Linear(shape.width, shape.inner, bias=False)
        self.wo = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class T5FeedForward(nn.Module):
    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.DenseReluDense = T5DenseGatedActDense(shape)
        self.layer_norm = T5Norm(shape.width)

    def forward(self, x: Tensor) -> Tensor:
        change = self.DenseReluDense(self.layer_norm(x))
        if x.dtype == torch.float16:  # half precision overflows in the last layers
            limit = torch.finfo(x.dtype).max - 1000
            return (x + change).clamp(-limit, limit)
        return x + change


class T5Block(nn.Module):
    def __init__(self, shape: T5Shape, with_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([T5SelfAttention(shape, with_bias), T5FeedForward(shape)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.layer[1](self.layer[0](x, bias))


class T5Stack(nn.Module):
    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.block = nn.ModuleList([T5Block(shape, index == 0) for index in range(shape.layers)])
        self.final_layer_norm = T5Norm(shape.width)


class T5Encoder(Checkpointed):
    """Ids (B, L) int64 -> hidden states (B, L, width)."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.shape = shape
        self.shared = nn.Embedding(shape.vocabulary, shape.width)
        self.encoder = T5Stack(shape)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` (B, L) bool: tokens that may be attended to; None: all, padding included."""
        x = self.shared(ids)
        positions = self.get_submodule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias")
        buckets = relative_buckets(ids.shape[1], self.shape.buckets).to(ids.device)
        bias = positions(buckets).permute(2, 0, 1)[None]
        if mask is not None:
            hidden = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, torch.finfo(bias.dtype).min)
            bias = bias + hidden[:, None, None, :]
        for block in self.encoder.block:
            x = self.run(block, x, bias)
        return self.encoder.final_layer_norm(x)


def relative_buckets(length: int, buckets: int = BUCKETS) -> Tensor:
    """Bucket of each pair of (attending, attended) tokens, (length, length) int64.

    Half of the buckets are for tokens behind, half for tokens in front; of each half one half is for
    single distances, the other for logarithmically growing ranges up to 128.
    """
    half = buckets // 2
    exact = half // 2
    places = torch.arange(length)
    offset = places[None, :] - places[:, None]
    distance = offset.abs()
    grown = torch.log(distance.clamp(min=1).float() / exact) / math.log(FARTHEST / exact) * (half - exact)
    far = (exact + grown.long()).clamp(max=half - 1)
    return (offset > 0).long() * half + torch.where(distance < exact, distance, far)


def t5_shape(shapes: Mapping[str, Sequence[int]]) -> T5Shape:
    """Dimensions read from ``shapes`` (parameter name -> shape).

    Raises:
        KeyError: it is another kind of T5, or incomplete.
    """
    layers = {name.split(".")[2] for name in shapes if name.startswith("encoder.block.")}
    buckets, heads = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    return T5Shape(
        width=shapes["shared.weight"][1],
        inner=shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
        layers=len(layers),
        heads=heads,
        head_size=shapes["encoder.block.0.layer.0.SelfAttention.q.weight"][0] // heads,
        vocabulary=shapes["shared.weight"][0],
        buckets=buckets,
    )


@cache
def tokenizer() -> Tokenizer:
    """T5's tokenizer out of the bundled file: no network, no transformers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(gzip.decompress(ASSET.read_bytes()).decode("utf-8"))


def token_ids(captions: Sequence[str], length: int) -> Tensor:
    """Ids (B, length) int64: the caption's, the end (1), then padding (0). Longer captions are cut."""
    rows = torch.zeros(len(captions), length, dtype=torch.int64)
    for row, text in zip(rows, captions, strict=True):
        ids = tokenizer().encode(text, add_special_tokens=False).ids[: length - 1]
        row[: len(ids) + 1] = torch.tensor([*ids, 1])
    return rows


def weighted_token_ids(captions: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """As :func:`token_ids` for captions with emphasis, and how much each token counts, (B, length) float32.

    A caption is read as if its brackets were not there, so that they never change how it falls into
    tokens; then each token counts what its letters count, the mean where those differ. End and
    padding count 1.
    """
    read = [parse(text) for text in captions]
    ids = token_ids(["".join(part.text for part in parts) for parts in read], length)
    weights = torch.ones(ids.shape)
    for row, parts in zip(weights, read, strict=True):
        found = _token_weights(parts)[: length - 1]
        row[: len(found)] = torch.tensor(found)
    return ids, weights


def _token_weights(parts: Sequence[Part]) -> list[float]:
    text = "".join(part.text for part in parts)
    letters = [part.weight for part in parts for _ in part.text]

    def weight(start: int, end: int) -> float:
        """A blank, which is the mark before a word, counts as the word behind it."""
        own = [letters[place] for place in range(start, end) if not text[place].isspace()]
        return fmean(own or letters[end : end + 1] or [1.0])

    return [weight(*span) for span in tokenizer().encode(text, add_special_tokens=False).offsets]
