"""CLIP's byte-pair encoding, from the bundled list of merges: counts tokens and shows what is cut.

No torch, no transformers, no network, so that a page can count while a person types. Emphasis such as
``(word:1.2)`` is counted as it is written.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ASSETS = Path(__file__).resolve().parent / "assets"
START = "<|startoftext|>"
END = "<|endoftext|>"
CHUNK = 75
"""Tokens between start and end in one pass of the text encoder."""
VOCABULARY = 49408
"""Entries of the vocabulary; ids from here on are words that were taught."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def count(text: str) -> int:
    """Tokens of a text, start and end not counted."""
    return len(bpe().encode(text, add_special_tokens=False).ids)


def counts(texts: Sequence[str]) -> list[int]:
    """:func:`count` of many texts, faster than one by one."""
    found = bpe().encode_batch_fast(list(texts), add_special_tokens=False)
    return [len(encoding.ids) for encoding in found]


def cut(text: str, limit: int = CHUNK) -> tuple[str, str]:
    """(kept, cut off): the text before the first token beyond ``limit``, and from it on; joined: ``text``."""
    offsets = bpe().encode(text, add_special_tokens=False).offsets
    if len(offsets) <= limit:
        return text, ""
    start = offsets[limit][0]
    return text[:start], text[start:]


def room(max_token_length: int | None) -> int:
    """Tokens of a caption that are used: ``max_token_length`` rounded up to whole chunks (None: 75)."""
    return -(-max(max_token_length or CHUNK, 1) // CHUNK) * CHUNK


@cache
def bpe() -> Tokenizer:
    """Byte-pair encoder of 49408 entries: bytes, bytes that end a word, merges, start and end."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pairs = merges()
    letters = _byte_letters()
    entries = letters + [f"{letter}</w>" for letter in letters] + [left + right for left, right in pairs]
    vocabulary = {entry: index for index, entry in enumerate([*entries, START, END])}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, unk_token=END, end_of_word_suffix="</w>"))
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


def merges() -> list[tuple[str, str]]:
    """The pairs in the order in which they are joined."""
    text = gzip.decompress((ASSETS / "clip_merges.txt.gz").read_bytes()).decode("utf-8")
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        left, _, right = line.partition(" ")
        found.append((left, right))
    return found


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte, in the vocabulary's order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]
