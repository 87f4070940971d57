"""CLIP's tokenizer, from the bundled list of merges (no network, no transformers)."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

ASSETS = Path(__file__).resolve().parent.parent / "assets"
START = "<|startoftext|>"
END = "<|endoftext|>"
CHUNK = 75
"""Tokens between start and end in one pass of the text encoder."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Captions -> ids. ``padding`` is the id after the end: the end's own for CLIP-L."""

    def __init__(self, padding: int | None = None) -> None:
        self.bpe = _bpe()
        self.start = _id(self.bpe, START)
        self.end = _id(self.bpe, END)
        self.padding = self.end if padding is None else padding

    def ids(self, caption: str) -> list[int]:
        """Ids of a caption without start, end and padding."""
        return self.bpe.encode(caption, add_special_tokens=False).ids

    def chunks(self, captions: Sequence[str], max_token_length: int | None = None) -> Tensor:
        """Ids (B, chunks, 77), int64: start, 75 ids and the sequence's last id in every chunk.

        A caption is cut at ``max_token_length`` tokens, rounded up to whole chunks (None: 75).
        """
        count = -(-max(max_token_length or CHUNK, 1) // CHUNK)
        return torch.tensor(
            [self._chunks(self.ids(caption), count) for caption in captions], dtype=torch.int64
        )

    def _chunks(self, ids: list[int], count: int) -> list[list[int]]:
        room = count * CHUNK
        inner = [*ids[:room], self.end] if len(ids) < room else ids[:room]
        inner += [self.padding] * (room - len(inner))
        last = self.end if len(ids) >= room else self.padding
        starts = range(0, room, CHUNK)
        return [[self.start, *inner[start : start + CHUNK], last] for start in starts]


@cache
def _bpe() -> Tokenizer:
    """Byte-pair encoder of 49408 entries: bytes, bytes that end a word, merges, start and end."""
    text = gzip.decompress((ASSETS / "clip_merges.txt.gz").read_bytes()).decode("utf-8")
    merges: list[tuple[str, str]] = []
    for line in text.splitlines():
        left, _, right = line.partition(" ")
        merges.append((left, right))
    letters = _byte_letters()
    entries = letters + [f"{letter}</w>" for letter in letters] + [left + right for left, right in merges]
    vocabulary = {entry: index for index, entry in enumerate([*entries, START, END])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def _id(tokenizer: Tokenizer, entry: str) -> int:
    found = tokenizer.token_to_id(entry)
    assert found is not None, f"{entry} is not in the vocabulary"
    return found


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte, in the vocabulary's order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]
