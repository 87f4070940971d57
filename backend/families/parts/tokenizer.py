"""CLIP's tokenizer as tensors of ids, from the bundled list of merges (no network, no transformers)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.data.tokens import CHUNK, END, START, bpe, room


class ClipTokenizer:
    """Captions -> ids. ``padding`` is the id after the end: the end's own for CLIP-L."""

    def __init__(self, padding: int | None = None) -> None:
        self.bpe = bpe()
        self.start = self._id(START)
        self.end = self._id(END)
        self.padding = self.end if padding is None else padding

    def ids(self, caption: str) -> list[int]:
        """Ids of a caption without start, end and padding."""
        return self.bpe.encode(caption, add_special_tokens=False).ids

    def chunks(self, captions: Sequence[str], max_token_length: int | None = None) -> Tensor:
        """Ids (B, chunks, 77), int64: start, 75 ids and the sequence's last id in every chunk.

        A caption is cut at ``max_token_length`` tokens, rounded up to whole chunks (None: 75).
        """
        length = room(max_token_length)
        return torch.tensor([self._chunks(self.ids(text), length) for text in captions], dtype=torch.int64)

    def _chunks(self, ids: list[int], length: int) -> list[list[int]]:
        inner = [*ids[:length], self.end] if len(ids) < length else ids[:length]
        inner += [self.padding] * (length - len(inner))
        last = self.end if len(ids) >= length else self.padding
        starts = range(0, length, CHUNK)
        return [[self.start, *inner[start : start + CHUNK], last] for start in starts]

    def _id(self, entry: str) -> int:
        found = self.bpe.token_to_id(entry)
        assert found is not None, f"{entry} is not in the vocabulary"
        return found
