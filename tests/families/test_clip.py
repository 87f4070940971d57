"""Every CLIP text encoder of the families: outputs as transformers gives them, and OpenCLIP's names."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from backend.families.parts import open_clip
from backend.families.parts.clip import ClipShape, ClipTextModel, clip_shape
from backend.families.parts.tokenizer import ClipTokenizer

SMALL = ClipShape(width=24, inner=48, layers=3, heads=4, activation="gelu", projection=20)
CAPTIONS = ["a photo of a cat", "sks, red hat, " * 30, ""]


def random_model(shape: ClipShape) -> ClipTextModel:
    torch.manual_seed(5)
    model = ClipTextModel(shape).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        scale = 0.02 if "embedding" in name else 0.3
        tensor.copy_(torch.randn(tensor.shape) * scale + (1.0 if "norm" in name and "weight" in name else 0))
    return model


@pytest.fixture(scope="module")
def model() -> ClipTextModel:
    return random_model(SMALL)


@pytest.fixture(scope="module")
def reference(model: ClipTextModel):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=24, intermediate_size=48, num_attention_heads=4, num_hidden_layers=3, hidden_act="gelu",
        projection_dim=20, eos_token_id=49407,
    )  # fmt: skip
    reference = CLIPTextModelWithProjection(config)
    reference.load_state_dict(model.state_dict(), strict=True)
    return reference.eval()


@pytest.mark.parametrize("last", [1, 2, 3])
def test_states_and_pooled_output_equal_transformers(model: ClipTextModel, reference, last: int) -> None:
    ids = ClipTokenizer(padding=0).chunks(CAPTIONS)[:, 0]
    with torch.no_grad():
        ours = model.encode(ids, last)
        theirs = reference(ids, output_hidden_states=True)
    torch.testing.assert_close(ours.hidden, theirs.hidden_states[-last], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.pooled, theirs.text_embeds, atol=1e-5, rtol=1e-5)
    assert ours.pooled.std() > 0.05
    torch.testing.assert_close(model(ids, last, norm=False), ours.hidden)


def test_hidden_padding_equals_transformers(model: ClipTextModel, reference) -> None:
    ids = ClipTokenizer(padding=0).chunks(CAPTIONS)[:, 0]
    ends = (ids == 49407).int().argmax(-1, keepdim=True)
    counts = torch.arange(77)[None] <= ends
    with torch.no_grad():
        ours = model.encode(ids, 2, counts)
        theirs = reference(ids, attention_mask=counts.long(), output_hidden_states=True)
    torch.testing.assert_close(ours.hidden, theirs.hidden_states[-2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.pooled, theirs.text_embeds, atol=1e-5, rtol=1e-5)
    plain = model.encode(ids, 2)
    torch.testing.assert_close(plain.pooled, ours.pooled)  # nothing after the end changes what is before
    assert not torch.allclose(plain.hidden[0], ours.hidden[0])


def test_dimensions_are_read_from_the_weights(model: ClipTextModel) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert clip_shape(shapes, heads=4, activation="gelu") == SMALL
    plain = {name: shape for name, shape in shapes.items() if name != "text_projection.weight"}
    assert clip_shape(plain, heads=4, activation="gelu") == dataclasses.replace(SMALL, projection=None)


def test_open_clip_names_go_both_ways(model: ClipTextModel) -> None:
    names = list(model.state_dict())
    original = open_clip.from_transformers(names)
    assert len(original) == 3 * 12 + 5
    fused = original["transformer.resblocks.1.attn.in_proj_weight"]
    assert [name.split(".")[-2] for name in fused] == ["q_proj", "k_proj", "v_proj"]
    back = open_clip.to_transformers([*original, "logit_scale", "attn_mask"])
    assert set(back) == set(names)
    assert back["text_projection.weight"] == open_clip.Piece("text_projection", turned=True)
    assert back["text_model.encoder.layers.2.self_attn.v_proj.bias"] == open_clip.Piece(
        "transformer.resblocks.2.attn.in_proj_bias", 2
    )
