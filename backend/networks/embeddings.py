"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): vectors of words that a text encoder is taught.

P+ (Voynov et al. 2023, arXiv 2303.09522), which sd-scripts calls XTI, has vectors for each layer of the
denoiser's cross-attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.networks.common import Adapter, AdapterNetwork, Forward


class Table(Protocol):
    """A text encoder's table of embeddings; families supply these (their ``WordTable``)."""

    @property
    def part(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def module(self) -> nn.Embedding: ...


@dataclass(frozen=True)
class Embedding:
    """The vectors of one word, as a file has them."""

    tables: Mapping[str, Tensor]
    """``emb_params``, or ``clip_l`` and ``clip_g`` -> (vectors, width); with layers, those of the first
    layer, then those of the second, and so on."""
    layers: tuple[str, ...] = ()
    """Names of the layers that have vectors of their own; () where all share them."""

    @property
    def vectors(self) -> int:
        """How many vectors stand for the word in a text."""
        return len(next(iter(self.tables.values()))) // max(1, len(self.layers))


class Span(NamedTuple):
    """Where the vectors of a word stand among the new ones."""

    start: int
    vectors: int
    layers: int
    """1 where all layers share them."""


def spans(embeddings: Sequence[Embedding]) -> list[Span]:
    """Places of the words' vectors when they are put one after the other."""
    found: list[Span] = []
    start = 0
    for embedding in embeddings:
        layers = max(1, len(embedding.layers))
        found.append(Span(start, embedding.vectors, layers))
        start += embedding.vectors * layers
    return found


def rows_by_layer(places: Sequence[Span], layers: int) -> Tensor:
    """(layers, rows) int64: the row that stands in place of each row in the text of each layer."""
    count = sum(span.vectors * span.layers for span in places)
    table = torch.arange(count).repeat(layers, 1)
    for span in places:
        if span.layers > 1:
            first = torch.arange(span.start, span.start + span.vectors)
            steps = torch.arange(layers)[:, None] * span.vectors
            table[:, span.start : span.start + span.vectors] = first + steps
    return table


class NewRows(Adapter):
    """Rows behind those of a table of embeddings: the only parameters, ``rows`` (N, width) float32."""

    def __init__(self, rows: Tensor, first: int) -> None:
        """``first``: the id of the first new row, behind all that ``base`` of the forward knows."""
        super().__init__()
        self.rows = nn.Parameter(rows.detach().float().clone())
        self.first = first

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """Ids (B, L) -> (B, L, width); ids below ``first`` are read by ``base``."""
        old = base(x.clamp(max=self.first - 1))
        new = F.embedding((x - self.first).clamp(min=0), self.rows.to(x.device)).to(old.dtype)
        return torch.where((x >= self.first)[..., None], new, old)


class _Site(NamedTuple):
    name: str
    part: str
    container: str
    module: nn.Module


class NewWords(AdapterNetwork):
    """The new rows of all text encoders of a model. Names of weights: ``words_te.rows``."""

    prefix = "words_"

    def __init__(self, tables: Sequence[Table], embeddings: Sequence[Embedding], first: int) -> None:
        """``embeddings`` one after the other, with ids from ``first`` on."""
        super().__init__(
            (_Site(table.part, table.part, "text", table.module), _new_rows(table, embeddings, first))
            for table in tables
        )
        self.names = {table.part: table.name for table in tables}

    def tables(self) -> dict[str, Tensor]:
        """Name in embedding files -> a copy of all new rows, on the CPU."""
        rows = {name.removeprefix(f"{self.prefix}"): tensor for name, tensor in self.weights().items()}
        return {own: rows[f"{part}.rows"] for part, own in self.names.items()}


def _new_rows(table: Table, embeddings: Sequence[Embedding], first: int) -> NewRows:
    rows = torch.cat([embedding.tables[table.name].float() for embedding in embeddings])
    return NewRows(rows, first)
