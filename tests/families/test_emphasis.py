"""Emphasis in captions: how it is read, and what it does to the text's hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend import families
from backend.data.emphasis import parse, plain
from backend.families.base import DiffusionModel
from backend.families.parts.tokenizer import ClipTokenizer, weigh_states
from backend.generate.text import encode, token_count
from tests.train.small import SmallModel


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a cat", [("a cat", 1)]),
        ("", []),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 1 / 1.1), (" cat", 1)]),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("((red))", [("red", 1.21)]),
        ("(a (b:1.5) c:0.5)", [("a ", 0.5), ("b", 0.75), (" c", 0.5)]),
        ("(a [b] c)", [("a ", 1.1), ("b", 1), (" c", 1.1)]),
        (r"a \(b\) \[c\] \\", [("a (b) [c] \\", 1)]),
        (r"(a\:b:1.2)", [("a\\:b", 1.2)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("open (to the end", [("open ", 1), ("to the end", 1.1)]),
        ("open [(twice", [("open twice", 1)]),
        ("closed) only]", [("closed) only]", 1)]),
        ("[x:1.2]", [("x:1.2", 1 / 1.1)]),
        ("at 12:30) or (x:1.2.3)", [("at 12:30) or ", 1), ("x:1.2.3", 1.1)]),
    ],
)
def test_how_emphasis_is_read(text: str, parts: list[tuple[str, float]]) -> None:
    found = parse(text)
    assert [part.text for part in found] == [text for text, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight for _, weight in parts])
    assert plain(text) == "".join(text for text, _ in parts)


def test_a_caption_without_emphasis_has_the_same_ids_and_weights_of_one() -> None:
    tokenizer = ClipTokenizer()
    texts = ["a photo of a cat, 12 dogs", "", "x " * 100]
    ids, weights = tokenizer.weighted_chunks(texts, 150)
    assert torch.equal(ids, tokenizer.chunks(texts, 150)) and torch.equal(weights, torch.ones_like(weights))


def test_weights_stand_at_their_tokens_over_several_chunks() -> None:
    tokenizer = ClipTokenizer()
    text = "x " * 74 + "(red cat:1.5) y"
    ids, weights = tokenizer.weighted_chunks([text], 150)
    assert torch.equal(ids, tokenizer.chunks([text.replace("(red cat:1.5)", "red cat")], 150))
    heavy = [tuple(place) for place in (weights[0] == 1.5).nonzero().tolist()]
    assert heavy == [(0, 75), (1, 1)] and weights.sum() == 2 * 77 + 1
    assert weights[0, 0, 0] == weights[0, 0, 76] == 1


def test_what_is_cut_off_has_no_weight_left() -> None:
    ids, weights = ClipTokenizer().weighted_chunks(["x " * 80 + "(red:9)"], 75)
    assert ids.shape == (1, 1, 77) and weights.max() == 1


def test_hidden_states_are_multiplied_in_the_order_of_the_tokens() -> None:
    weights = torch.arange(2 * 77, dtype=torch.float32).view(1, 2, 77)
    found = weigh_states(torch.ones(1, 152, 3), weights)[0, :, 0]
    assert found.tolist() == [0, *range(1, 76), *range(78, 153), 153]


@pytest.fixture(scope="module")
def model(tiny_sd15: Path) -> DiffusionModel:
    return families.load(tiny_sd15, dtype=torch.float32)


def test_only_the_emphasised_word_counts_more(model: DiffusionModel) -> None:
    with torch.no_grad():
        tokens, weights = model.tokenize_weighted(["a (red:1.5) cat"])
        plain_text = model.encode_text(model.tokenize(["a red cat"]))["hidden"]
        found = model.weigh_text(model.encode_text(tokens), weights)["hidden"]
    expected = plain_text.clone()
    expected[:, 2] *= 1.5
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_prompts_are_read_with_emphasis_and_plain_ones_are_as_before(model: DiffusionModel) -> None:
    device = torch.device("cpu")
    plain_text = model.encode_text(model.tokenize(["a red cat", "12"]))["hidden"]
    assert torch.equal(encode(model, ["a red cat", "12"], None, None, device)["hidden"], plain_text)
    found = encode(model, ["a (red:1.5) cat", "12"], None, None, device)["hidden"]
    torch.testing.assert_close(found[1], plain_text[1])
    torch.testing.assert_close(found[0, 2], 1.5 * plain_text[0, 2])
    assert token_count(model, "a (red:1.5) cat") == 3


@torch.no_grad()
def test_a_prompt_keeps_its_mean() -> None:
    small = SmallModel()
    before = small.encode_text(small.tokenize(["ab", "c"]))["hidden"]
    found = encode(small, ["a(b:9)", "c"], None, None, torch.device("cpu"))["hidden"]
    torch.testing.assert_close(found.mean((-2, -1)), before.mean((-2, -1)))
    torch.testing.assert_close(found[0, 1] / found[0, 0], 9 * before[0, 1] / before[0, 0])
    torch.testing.assert_close(found[1], before[1])
