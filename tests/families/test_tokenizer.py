"""The CLIP tokenizer made from the bundled merges."""

from __future__ import annotations

import pytest
import torch

from backend.data import tokens
from backend.families.parts.tokenizer import ClipTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def test_known_ids(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.ids("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert (tokenizer.start, tokenizer.end) == (49406, 49407)


@pytest.mark.parametrize(
    "caption",
    [
        "a photo of a CAT",
        "日本語 の テスト",
        "it's 1girl, (masterpiece:1.2), \\(name\\)",
        "émigré É Ünïcødé—dash…",
        "  a\n\tb  ",
        "sks🎨 dog",
        "<|endoftext|> x",
        "",
        "don't I'LL 123",
        "a" * 200,
    ],
)
def test_equals_transformers(tokenizer: ClipTokenizer, caption: str) -> None:
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer(vocab=tokenizer.bpe.get_vocab(), merges=tokens.merges())
    assert tokenizer.ids(caption) == reference(caption)["input_ids"][1:-1]


def test_one_chunk_is_padded_and_cut(tokenizer: ClipTokenizer) -> None:
    short, full, long = tokenizer.chunks(["a cat", "cat " * 75, "cat " * 80])
    assert short.shape == (1, 77)
    assert short[0, :5].tolist() == [49406, 320, 2368, 49407, 49407]
    assert set(short[0, 3:].tolist()) == {49407}
    assert torch.equal(full, long)
    assert long[0].tolist() == [49406, *[2368] * 75, 49407]


@pytest.mark.parametrize(("limit", "chunks"), [(None, 1), (75, 1), (150, 2), (225, 3)])
def test_chunks(tokenizer: ClipTokenizer, limit: int | None, chunks: int) -> None:
    ids = tokenizer.chunks(["cat " * 300], limit)
    assert ids.shape == (1, chunks, 77)
    assert ids[0, :, 0].tolist() == [49406] * chunks
    assert ids[0, :, -1].tolist() == [49407] * chunks
    assert set(ids[0, :, 1:-1].flatten().tolist()) == {2368}


def test_padding_of_its_own(tokenizer: ClipTokenizer) -> None:
    ids = ClipTokenizer(padding=0).chunks(["a cat"])
    assert ids[0, 0, :6].tolist() == [49406, 320, 2368, 49407, 0, 0]
    assert ids[0, 0, -1] == 0
