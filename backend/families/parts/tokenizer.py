"""CLIP's tokenizer as tensors of ids, from the bundled list of merges (no network, no transformers)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.data.emphasis import parse
from backend.data.tokens import CHUNK, END, START, bpe, room
from backend.families.parts.words import Words


class ClipTokenizer:
    """Captions -> ids. ``padding`` is the id after the end: the end's own for CLIP-L."""

    words = Words()
    """What was taught beside the vocabulary."""

    def __init__(self, padding: int | None = None) -> None:
        self.bpe = bpe()
        self.start = self._id(START)
        self.end = self._id(END)
        self.padding = self.end if padding is None else padding

    def ids(self, caption: str) -> list[int]:
        """Ids of a caption without start, end and padding."""
        if not self.words.ids:
            return self.bpe.encode(caption, add_special_tokens=False).ids
        found: list[int] = []
        for text, ids in self.words.split(caption):
            found += [*self.bpe.encode(text, add_special_tokens=False).ids, *ids]
        return found

    def chunks(self, captions: Sequence[str], max_token_length: int | None = None) -> Tensor:
        """Ids (B, chunks, 77), int64: start, 75 ids and an end or padding in every chunk.

        A caption is cut at ``max_token_length`` tokens, rounded up to whole chunks (None: 75).
        """
        length = room(max_token_length)
        return torch.tensor([self._chunks(self.ids(text), length) for text in captions], dtype=torch.int64)

    def weighted_ids(self, caption: str) -> tuple[list[int], list[float]]:
        """Ids of a caption with emphasis, brackets gone, and how much each counts."""
        parts = [(self.ids(part.text), part.weight) for part in parse(caption)]
        return (
            [id for ids, _ in parts for id in ids],
            [weight for ids, weight in parts for _ in ids],
        )

    def weighted_chunks(
        self, captions: Sequence[str], max_token_length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`chunks` for captions with emphasis, and weights of the same shape, float32.

        Start, end and padding count 1.
        """
        length = room(max_token_length)
        found = [self.weighted_ids(text) for text in captions]
        ids = [self._chunks(each, length) for each, _ in found]
        weights = [_weight_chunks(each, length) for _, each in found]
        return torch.tensor(ids, dtype=torch.int64), torch.tensor(weights, dtype=torch.float32)

    def _chunks(self, ids: list[int], length: int) -> list[list[int]]:
        kept = ids[:length]
        return [self._chunk(kept[start : start + CHUNK]) for start in range(0, length, CHUNK)]

    def _chunk(self, ids: list[int]) -> list[int]:
        """Start, up to 75 ids, an end, and padding: every chunk is a text of its own."""
        return [self.start, *ids, self.end, *[self.padding] * (CHUNK - len(ids))]

    def _id(self, entry: str) -> int:
        found = self.bpe.token_to_id(entry)
        assert found is not None, f"{entry} is not in the vocabulary"
        return found


def _weight_chunks(weights: list[float], length: int) -> list[list[float]]:
    inner = weights[:length] + [1.0] * (length - len(weights))
    return [[1.0, *inner[start : start + CHUNK], 1.0] for start in range(0, length, CHUNK)]


def weigh_states(states: Tensor, weights: Tensor) -> Tensor:
    """Hidden states (B, chunks x 75 + 2, D) times the weights (B, chunks, 77) of their tokens; also
    those with a text for each layer, (B, layers, chunks x 75 + 2, D).

    Nothing is brought back to the mean it had, and pooled outputs are left alone, as sd-scripts has it.
    """
    inner = weights[:, :, 1:-1].flatten(1, 2)
    row = torch.cat([weights[:, 0, :1], inner, weights[:, -1, -1:]], dim=1)
    row = row[..., None] if states.dim() == 3 else row[:, None, :, None]
    return states * row.to(states.device, states.dtype)
