"""SD 3's parts in one file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.weights.parts import JoinParts, run
from tests.weights.weights_kit import tensors_of

UNET, VAE = "joint_blocks.0.x_block.attn.qkv.weight", "decoder.conv_in.weight"
CLIP, T5 = "text_model.embeddings.token_embedding.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"


def file(path, value, *names):
    save_file({name: torch.full((2, 4), float(value)) for name in names}, path)
    return path


def test_parts_get_their_places_and_win_over_the_model_s_own(tmp_path):
    base = file(tmp_path / "b.safetensors", 1, f"model.diffusion_model.{UNET}", f"first_stage_model.{VAE}",
                f"text_encoders.clip_l.transformer.{CLIP}")  # fmt: skip
    clip_l, t5 = file(tmp_path / "l.safetensors", 2, CLIP), file(tmp_path / "t.safetensors", 3, T5)
    report = run(JoinParts(base, tmp_path / "w.safetensors", clip_l=clip_l, t5xxl=t5, save_precision="fp16"))
    found = tensors_of(tmp_path / "w.safetensors")
    assert {name: float(tensor[0, 0]) for name, tensor in found.items()} == {
        f"model.diffusion_model.{UNET}": 1,
        f"first_stage_model.{VAE}": 1,
        f"text_encoders.clip_l.transformer.{CLIP}": 2,
        f"text_encoders.t5xxl.transformer.{T5}": 3,
    }
    assert all(tensor.dtype == torch.float16 for tensor in found.values())
    assert report.notes == ["no CLIP-G inside"]


def test_a_transformer_alone_gets_its_prefix_and_wrong_files_are_named(tmp_path):
    bare = file(tmp_path / "b.safetensors", 1, UNET)
    run(JoinParts(bare, tmp_path / "w.safetensors"))
    assert list(tensors_of(tmp_path / "w.safetensors")) == [f"model.diffusion_model.{UNET}"]
    with pytest.raises(InputError, match="has no T5-XXL"):
        run(JoinParts(bare, tmp_path / "x.safetensors", t5xxl=file(tmp_path / "l.safetensors", 2, CLIP)))
    assert not (tmp_path / "x.safetensors").exists()
