"""SD 3 to a diffusers folder, as diffusers and transformers read it, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from backend import families
from backend.weights import convert
from backend.weights.convert import Convert
from tests.families.sd3_kit import MEDIUM, MEDIUM35, build


@pytest.fixture(scope="module", params=[MEDIUM, MEDIUM35], ids=["3", "3.5"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A single file, and the folder that was made of it."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("sd3")
    file = build(place / "m.safetensors", request.param)
    convert.run(Convert(file, place / "folder", precision=None))
    return file, place / "folder"


def test_the_way_there_and_back_changes_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    file, folder = pair
    convert.run(Convert(folder, tmp_path / "back.safetensors", precision=None))
    before, after = load_file(file), load_file(tmp_path / "back.safetensors")
    assert before.keys() - after.keys() == {"text_encoders.clip_l.logit_scale"}, "no part of the model"
    assert after.keys() <= before.keys()
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_it_is_used_as_the_file_is(pair: tuple[Path, Path]) -> None:
    one, other = (families.load(path) for path in pair)
    texts = [model.encode_text(model.tokenize(["a cat, seen from behind"])) for model in (one, other)]
    assert all(torch.equal(texts[0][name], texts[1][name]) for name in texts[0])
    latents = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = [
            m.predict(latents, torch.tensor([500.0]), t) for m, t in zip((one, other), texts, strict=True)
        ]
    assert torch.equal(*found)


def test_every_part_is_read_by_its_own_library(pair: tuple[Path, Path]) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel

    file, folder = pair
    model: Any = families.load(file)
    classes = {
        "transformer": SD3Transformer2DModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection, "text_encoder_3": T5EncoderModel,
    }  # fmt: skip
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "StableDiffusion3Pipeline"
    for part, kind in classes.items():
        assert index[part][1] == kind.__name__
        extra = {} if part in ("transformer", "vae") else {"output_loading_info": True}
        loaded = kind.from_pretrained(folder / part, local_files_only=True, **extra)
        if extra:
            loaded, info = loaded
            assert not info["missing_keys"] and not info["mismatched_keys"], part
        stored = load_file(next((folder / part).glob("*.safetensors")))
        state = {
            name: tensor for name, tensor in loaded.state_dict().items() if not name.endswith("position_ids")
        }
        assert {n.removeprefix("text_model.") for n in stored} <= {
            n.removeprefix("text_model.") for n in state
        }, part
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer_3", local_files_only=True)
    wanted = model.tokenize(["a photo of a cat"])["te3"][0, 0]
    found = tokenizer("a photo of a cat")["input_ids"]
    assert found == wanted[: len(found)].tolist()
    second = AutoTokenizer.from_pretrained(folder / "tokenizer_2", local_files_only=True)
    assert second.pad_token_id == 0
