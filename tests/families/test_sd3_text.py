"""SD 3's prompts: emphasis for its three text encoders, BREAK, and texts of more than one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from backend import families
from backend.families.options import LoadOptions
from backend.families.sd3.model import StableDiffusion3
from backend.families.sd3.t5 import token_ids, weighted_token_ids
from backend.generate import text
from backend.generate.request import Request
from backend.generate.sampling import sample
from tests.families.sd3_kit import build

LENGTH = 20
"""Tokens of T5 in these tests."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion3:
    torch.set_num_threads(1)
    path = build(tmp_path_factory.mktemp("sd3") / "small.safetensors", dtype=torch.float32)
    found = families.load(path, options=LoadOptions(t5xxl_max_token_length=LENGTH))
    assert isinstance(found, StableDiffusion3)
    return found


@torch.no_grad()
def plain(model: StableDiffusion3, *captions: str) -> dict[str, Tensor]:
    return dict(model.encode_text(model.tokenize(captions)))


@torch.no_grad()
def encoded(model: StableDiffusion3, *prompts: str, mode: Any = "original") -> dict[str, Tensor]:
    return dict(text.encode(model, prompts, None, None, torch.device("cpu"), mode))


@pytest.mark.parametrize(
    ("caption", "weights"),
    [
        # ids:  ▁ a ▁red ▁cat </s>
        ("a (red:1.5) cat", [1, 1, 1.5, 1, 1]),
        ("(a:2) red cat", [2, 2, 1, 1, 1]),
        ("a red (cat)", [1, 1, 1, 1.1, 1]),
        ("[a red] cat", [1 / 1.1, 1 / 1.1, 1 / 1.1, 1, 1]),
        ("a (r:3)ed cat", [1, 1, (3 + 1 + 1) / 3, 1, 1]),
    ],
)
def test_t5_counts_a_token_as_its_letters(caption: str, weights: list[float]) -> None:
    ids, found = weighted_token_ids([caption], LENGTH)
    assert torch.equal(ids, token_ids(["a red cat"], LENGTH)), "brackets do not change the tokens"
    assert found[0].tolist() == pytest.approx([*weights, *[1] * (LENGTH - len(weights))])


def test_t5_marks_before_a_word_count_as_the_word() -> None:
    # "▁" and "x" are two tokens, and the blank before the word stands outside of the brackets.
    ids, found = weighted_token_ids(["b (x:1.5)"], LENGTH)
    assert torch.equal(ids, token_ids(["b x"], LENGTH))
    assert found[0, :5].tolist() == pytest.approx([1, 1, 1.5, 1.5, 1])


def test_what_t5_cuts_off_has_no_weight_left() -> None:
    ids, found = weighted_token_ids(["word " * LENGTH + "(red:9)", ""], LENGTH)
    assert ids.shape == (2, LENGTH) and ids[0, -1] == 1
    assert torch.equal(found, torch.ones(2, LENGTH))


@pytest.mark.parametrize("prompt", ["a red cat", "(a red:1) cat", r"a \(red\) cat", "", "blue, {x} ½ ﬁne"])
def test_neutral_weights_are_the_plain_text_to_the_bit(model: StableDiffusion3, prompt: str) -> None:
    bare = {"(a red:1) cat": "a red cat", r"a \(red\) cat": "a (red) cat"}.get(prompt, prompt)
    expected, found = plain(model, bare), encoded(model, prompt)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_each_encoder_counts_the_word_by_its_own_tokens(model: StableDiffusion3) -> None:
    before, found = plain(model, "a red cat"), encoded(model, "a (red:1.5) cat", mode="none")
    for name, place in (("clip_l", 2), ("clip_g", 2), ("t5", 2)):
        expected = before[name].clone()
        expected[:, place] *= 1.5
        assert torch.equal(found[name], expected), name
    assert all(torch.equal(found[name], before[name]) for name in ("pooled_l", "pooled_g"))


def test_a_prompt_is_brought_back_to_what_it_was(model: StableDiffusion3) -> None:
    before, bare = plain(model, "a red cat"), encoded(model, "a (red:1.5) cat", mode="none")
    found = encoded(model, "a (red:1.5) cat", "a red cat")
    for name in ("clip_l", "clip_g"):
        ratio = before[name].mean() / bare[name].mean()
        torch.testing.assert_close(found[name][:1], bare[name] * ratio)
    ratio = before["t5"].abs().mean() / bare["t5"].abs().mean()
    torch.testing.assert_close(found["t5"][:1], bare["t5"] * ratio)
    sized = encoded(model, "a (red:1.5) cat", mode="abs")
    for name in ("clip_l", "clip_g", "t5"):
        torch.testing.assert_close(sized[name].abs().mean(), before[name].abs().mean())
        torch.testing.assert_close(found[name][1:], before[name])  # beside it, nothing changes


def test_break_parts_are_read_alone_and_stand_one_behind_the_other(model: StableDiffusion3) -> None:
    first, second = plain(model, "a red cat"), plain(model, "a dog")
    found = encoded(model, "a red cat BREAK a dog")
    for name in ("clip_l", "clip_g"):
        one, two = first[name][0], second[name][0]
        # The first start, 75 states of each part, the last end: as SD 1.x and SDXL have it.
        expected = torch.cat([one[:1], one[1:-1], two[1:-1], two[-1:]])
        torch.testing.assert_close(found[name][0], expected)
    torch.testing.assert_close(found["t5"][0], torch.cat([first["t5"][0], second["t5"][0]]))
    for name in ("pooled_l", "pooled_g"):
        torch.testing.assert_close(found[name], first[name])


def test_brackets_reach_over_a_break(model: StableDiffusion3) -> None:
    found = encoded(model, "a (red BREAK dog:1.5)", mode="none")
    first, second = plain(model, "a red"), plain(model, "dog")
    torch.testing.assert_close(found["t5"][0, 2], first["t5"][0, 2] * 1.5)
    torch.testing.assert_close(found["t5"][0, LENGTH], second["t5"][0, 0] * 1.5)
    torch.testing.assert_close(found["clip_l"][0, 76], second["clip_l"][0, 1] * 1.5)
    torch.testing.assert_close(found["clip_g"][0, 1], first["clip_g"][0, 1])


def test_prompts_of_one_pass_have_as_many_parts(model: StableDiffusion3) -> None:
    found = encoded(model, "a cat BREAK a dog", "a cat")
    assert found["clip_l"].shape[1] == 2 * 75 + 2 and found["t5"].shape[1] == 2 * LENGTH
    torch.testing.assert_close(found["t5"][1, LENGTH:], plain(model, "")["t5"][0])


@torch.no_grad()
def test_clip_reads_more_than_75_tokens_where_it_is_asked_to(model: StableDiffusion3) -> None:
    words = " ".join(["x"] * 80)
    short, long = model.tokenize([words]), model.tokenize([words], 150)
    assert short["te1"].shape == (1, 1, 77) and long["te2"].shape == (1, 2, 77)
    assert torch.equal(short["te3"], long["te3"])
    found, rest = dict(model.encode_text(long)), plain(model, " ".join(["x"] * 5))
    torch.testing.assert_close(found["clip_l"][0, 76:], rest["clip_l"][0, 1:])
    assert text.tokens_needed(model, words) == 150


def test_pictures_follow_emphasis_and_break(model: StableDiffusion3) -> None:
    asked = {"width": 64, "height": 64, "steps": 1, "seed": 3, "scale": 1.0, "sampler": "euler"}
    drawn = {
        prompt: sample(model, [Request(prompt=prompt, **asked)]).final
        for prompt in ("a red cat", "a (red:1.0) cat", "a (red:1.8) cat", "a red BREAK cat")
    }
    base, neutral, strong, cut = drawn.values()
    assert torch.equal(base, neutral)
    assert not torch.allclose(base, strong) and not torch.allclose(base, cut)
    assert all(bool(torch.isfinite(each).all()) for each in drawn.values())


@torch.no_grad()
def test_captions_have_emphasis_too_and_encoders_may_be_missing(model: StableDiffusion3) -> None:
    tokens, weights = model.tokenize_weighted(["a (red:1.5) cat"])
    alone = {name: ids for name, ids in tokens.items() if name == "te2"}  # the others' texts are cached
    found = model.weigh_text(model.encode_text(alone), weights)
    before = plain(model, "a red cat")
    assert found.keys() == {"clip_g", "pooled_g"}
    torch.testing.assert_close(found["clip_g"][:, 2], before["clip_g"][:, 2] * 1.5)
