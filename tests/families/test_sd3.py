"""SD 3 and 3.5: outputs against diffusers and transformers, encoding, files, positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend import families
from backend.errors import InputError
from backend.families.options import LoadOptions
from backend.families.sd3 import keys
from backend.families.sd3.layout import original_shapes, published, skeletons
from backend.families.sd3.mmdit import MMDiT, mmdit_shape
from backend.families.sd3.model import StableDiffusion3
from backend.families.sd3.positions import Positions, sincos, training_sizes
from backend.families.sd3.t5 import T5Encoder, t5_shape, token_ids
from backend.families.store import open_tensors
from tests.families.sd3_kit import LARGE35, MEDIUM, MEDIUM35, Kind, build, shapes_of

KINDS = {"medium": MEDIUM, "5-medium": MEDIUM35, "5-large": LARGE35}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sd3")
    return {name: build(folder / f"{name}.safetensors", kind) for name, kind in KINDS.items()}


def load(path: Path, **options: Any) -> StableDiffusion3:
    model = families.load(path, options=LoadOptions(**options))
    assert isinstance(model, StableDiffusion3)
    return model


@pytest.fixture(scope="module")
def model(files: dict[str, Path]) -> StableDiffusion3:
    return load(files["medium"])


def reference_transformer(kind: Kind) -> Any:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    torch.manual_seed(0)
    shape = shapes_of(kind).transformer
    reference = SD3Transformer2DModel(
        sample_size=16, num_layers=shape.depth, attention_head_dim=shape.width // shape.heads,
        num_attention_heads=shape.heads, joint_attention_dim=shape.context_width,
        caption_projection_dim=shape.width, pooled_projection_dim=shape.pooled_width,
        pos_embed_max_size=shape.grid, dual_attention_layers=tuple(sorted(kind.dual)),
        qk_norm="rms_norm" if kind.qk_norm else None,
    ).eval()  # fmt: skip
    for name, tensor in reference.state_dict().items():
        if "norm_" in name and name.endswith("q.weight"):
            tensor.uniform_(0.5, 1.5)
    return reference


def from_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, twin in keys.from_diffusers(state).items():
        whole = torch.cat([state[piece] for piece in twin.names])
        found[name] = torch.cat(whole.chunk(2)[::-1]) if twin.swapped else whole
    return found


@pytest.mark.parametrize("name", KINDS)
def test_transformer_is_diffusers_own(name: str) -> None:
    reference = reference_transformer(KINDS[name])
    state = from_diffusers(reference.state_dict())
    shape = mmdit_shape({key: tuple(tensor.shape) for key, tensor in state.items()}, heads=4)
    assert shape.variant == name and shape.grid == 24
    ours = MMDiT(shape)
    ours.load_state_dict(state)  # strict: every tensor of diffusers' has its place
    generator = torch.Generator().manual_seed(1)
    latents, context = (
        torch.randn(2, 16, 8, 12, generator=generator),
        torch.randn(2, 9, 96, generator=generator),
    )
    pooled, timesteps = torch.randn(2, 80, generator=generator), torch.tensor([900.7, 1.5])
    with torch.no_grad():
        expected = reference(latents, context, pooled, timesteps).sample
        torch.testing.assert_close(ours(latents, timesteps, context, pooled), expected, atol=1e-5, rtol=1e-5)


def test_t5_is_transformers_own() -> None:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    reference = T5EncoderModel(config).eval()
    state = {name: tensor for name, tensor in reference.state_dict().items() if "embed_tokens" not in name}
    ours = T5Encoder(t5_shape({name: tuple(tensor.shape) for name, tensor in state.items()}))
    ours.load_state_dict(state)
    ids = torch.randint(2, 99, (2, 150), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(150)[None] < torch.tensor([[40], [150]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), reference(ids).last_hidden_state, atol=1e-5, rtol=1e-5)
        masked = reference(ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(ours(ids, mask), masked, atol=1e-5, rtol=1e-5)


def test_t5_tokens() -> None:
    assert token_ids(["a photo of a cat", ""], 9).tolist() == [
        [3, 9, 1202, 13, 3, 9, 1712, 1, 0],
        [1] + [0] * 8,
    ]
    assert token_ids(["a photo of a cat"], 4).tolist() == [[3, 9, 1202, 1]]  # cut, with the end kept


@pytest.mark.parametrize("name", KINDS)
def test_full_width_names_are_the_published_ones(name: str, golden_dir: Path) -> None:
    table = {"medium": "sd3_medium", "5-medium": "sd35_medium", "5-large": "sd35_large"}[name]
    wanted = json.loads((golden_dir / "keys" / f"{table}_mmdit_state_dict.json").read_text())
    state = skeletons(published(name))["transformer"].state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == wanted


@pytest.mark.parametrize(
    ("name", "kind"), [("sd3_medium", "medium"), ("sd35_medium", "5-medium"), ("sd35_large", "5-large")]
)
def test_modules_of_a_lora(name: str, kind: str, golden_dir: Path) -> None:
    wanted = json.loads((golden_dir / "keys" / f"{name}_lora_base.json").read_text())["tensors"]
    parts = skeletons(published(kind))
    found = full_width(parts)
    shapes = {f"lora_{site.name}": tuple(site.module.weight.shape) for site in found if site.part != "te3"}  # type: ignore[union-attr]
    downs = {key.removesuffix(".lora_down.weight"): shape for key, shape in wanted.items() if "down" in key}
    assert shapes.keys() == downs.keys()
    assert all(shapes[key][1] == shape[1] for key, shape in downs.items())
    assert sum(site.part == "te3" for site in found) == 168


def full_width(parts: dict[str, Any]) -> list[Any]:
    from backend.families.base import Source
    from backend.families.sd3.model import TextParts
    from backend.families.sd3.weights import Weights

    texts = TextParts(parts["clip_l"], parts["clip_g"], parts["t5xxl"])
    none = Path()
    model = StableDiffusion3(parts["transformer"], texts, parts["vae"], Source(none), Weights(none, {}))
    return list(model.adapter_modules())


def test_original_names_of_the_other_parts() -> None:
    names = original_shapes(published("medium"))
    assert names["text_encoders.clip_g.transformer.text_projection.weight"] == (1280, 1280)
    assert names[
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ] == (32, 64)
    assert names["first_stage_model.encoder.conv_out.weight"] == (32, 512, 3, 3)
    assert names["first_stage_model.decoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
    assert not [name for name in names if "quant_conv" in name]


@pytest.mark.parametrize("name", KINDS)
def test_round_trip(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    model = families.load(files[name], dtype=torch.float16)
    model.save(tmp_path / "out.safetensors", None)
    before, after = open_tensors(files[name]), open_tensors(tmp_path / "out.safetensors")
    assert {n: t.shape for n, t in before.header.tensors.items()} == {
        n: t.shape for n, t in after.header.tensors.items()
    }
    assert all(torch.equal(before.read(key), after.read(key)) for key in before.header.tensors)
    again = load(tmp_path / "out.safetensors")
    assert again.transformer.shape == shapes_of(KINDS[name]).transformer


def test_without_a_memory_map_the_values_are_the_same(
    files: dict[str, Path], model: StableDiffusion3
) -> None:
    other = families.load(files["medium"], dtype=torch.float16, options=LoadOptions(mmap=False))
    weight = model.transformer.context_embedder.weight
    assert torch.equal(
        next(p for n, p in other.denoiser.named_parameters() if n == "context_embedder.weight").float(),
        weight,
    )


def split_off(source: Path, target: Path, prefixes: dict[str, str]) -> Path:
    """A file of those tensors whose names begin with a prefix, under a new one; the rest is left out."""
    from safetensors.torch import save_file

    opened = open_tensors(source)
    found = {
        new + name.removeprefix(old): opened.read(name).clone()
        for old, new in prefixes.items() for name in opened.header.tensors if name.startswith(old)
    }  # fmt: skip
    save_file(found, target, metadata=dict(opened.header.metadata))
    return target


@pytest.fixture(scope="module")
def own_files(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    prefixes = {part: {f"text_encoders.{part}.transformer.": ""} for part in ("clip_l", "clip_g", "t5xxl")}
    prefixes["vae"] = {"first_stage_model.": ""}
    prefixes["bare"] = {"model.diffusion_model.": "model.diffusion_model."}
    return {
        part: split_off(files["medium"], folder / f"{part}.safetensors", table)
        for part, table in prefixes.items()
    }


def test_parts_in_own_files(own_files: dict[str, Path], model: StableDiffusion3) -> None:
    parts = {part: own_files[part] for part in ("clip_l", "clip_g", "t5xxl")}
    other = families.load(own_files["bare"], vae=own_files["vae"], options=LoadOptions(**parts))
    ours, theirs = encoded(model, ["a cat"]), encoded(other, ["a cat"])
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_missing_parts_are_asked_for(own_files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no CLIP-L inside") as caught:
        load(own_files["bare"])
    assert caught.value.problems[0].key == "clip_l"
    with pytest.raises(InputError, match="not the weights of a T5-XXL") as caught:
        load(own_files["bare"], t5xxl=own_files["clip_l"], clip_l=own_files["clip_l"])
    assert caught.value.problems[0].key == "t5xxl"
    with pytest.raises(InputError, match="pooled numbers"):
        families.load(
            own_files["bare"], vae=own_files["vae"],
            options=LoadOptions(clip_l=own_files["clip_l"], clip_g=own_files["clip_l"]),
        )  # fmt: skip


def test_t5_is_optional(own_files: dict[str, Path], model: StableDiffusion3) -> None:
    parts = {part: own_files[part] for part in ("clip_l", "clip_g")}
    without = families.load(own_files["bare"], vae=own_files["vae"], options=LoadOptions(**parts))
    assert list(without.text_encoders) == ["te1", "te2"]
    noisy, time = torch.randn(1, 16, 8, 8), torch.tensor([500.0])
    text = encoded(model, ["a cat"])
    zeros = {**text, "t5": torch.zeros(1, 77, 96)}
    with torch.no_grad():
        ours = without.predict(noisy, time, encoded(without, ["a cat"]))
        assert torch.equal(ours, model.predict(noisy, time, zeros))
        assert not torch.allclose(ours, model.predict(noisy, time, text))


def encoded(model: Any, captions: list[str]) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(model.encode_text(model.tokenize(captions)))


def test_clip_l_without_a_projection_is_used_as_it_is(own_files: dict[str, Path], tmp_path: Path) -> None:
    bare = split_off(own_files["clip_l"], tmp_path / "l.safetensors", {"text_model.": "text_model."})
    parts = {"clip_l": bare, "clip_g": own_files["clip_g"]}
    model = families.load(own_files["bare"], vae=own_files["vae"], options=LoadOptions(**parts))
    assert isinstance(model, StableDiffusion3)
    assert torch.equal(model.clip("te1").text_projection.weight, torch.eye(32))
    model.save(tmp_path / "out.safetensors", torch.float16)
    names = open_tensors(tmp_path / "out.safetensors").header.tensors
    assert "text_encoders.clip_l.transformer.text_projection.weight" not in names
    assert "text_encoders.clip_g.transformer.text_projection.weight" in names


@pytest.mark.parametrize(
    ("option", "changed", "kept"),
    [("apply_lg_attn_mask", "clip_g", "t5"), ("apply_t5_attn_mask", "t5", "clip_l")],
)
def test_attention_masks_hide_padding(
    option: str, changed: str, kept: str, files: dict[str, Path], model: StableDiffusion3
) -> None:
    masked = load(files["medium"], **{option: True})
    plain, other = encoded(model, ["a cat"]), encoded(masked, ["a cat"])
    assert not torch.allclose(plain[changed], other[changed])
    assert torch.equal(plain[kept], other[kept])
    assert model.text_rules() != masked.text_rules()


def test_masked_t5_does_not_see_its_padding(files: dict[str, Path]) -> None:
    short, long = (load(files["medium"], apply_t5_attn_mask=True, t5xxl_max_token_length=n) for n in (16, 40))
    count = int((token_ids(["a cat"], 16) != 0).sum())
    a, b = encoded(short, ["a cat"])["t5"], encoded(long, ["a cat"])["t5"]
    assert a.shape[1] == 16 and b.shape[1] == 40
    torch.testing.assert_close(a[:, :count], b[:, :count])


def test_each_encoder_is_dropped_by_key(files: dict[str, Path], model: StableDiffusion3) -> None:
    half = load(files["medium"], clip_l_dropout_rate=0.5, clip_g_dropout_rate=0.5, t5_dropout_rate=1.0)
    keys_ = [(f"p{i}", 0) for i in range(200)]
    draws = half.training_draws(3, keys_)
    assert not draws["keep_t5"].any()
    assert 70 < draws["keep_clip_l"].sum() < 130
    assert not torch.equal(draws["keep_clip_l"], draws["keep_clip_g"])  # each encoder by itself
    again = half.training_draws(3, keys_[7:9])
    assert torch.equal(again["keep_clip_l"], draws["keep_clip_l"][7:9])  # whatever else is in the batch
    assert model.training_draws(3, keys_) == {}


def test_a_dropped_encoder_counts_as_zeros(model: StableDiffusion3) -> None:
    noisy, time = torch.randn(2, 16, 8, 8), torch.tensor([500.0, 20.0])
    text = encoded(model, ["a cat", "a dog"])
    keep = torch.tensor([1.0, 0.0])
    zeros = dict(text)
    for name in ("clip_g", "pooled_g", "t5"):
        zeros[name] = text[name] * keep.view(-1, *[1] * (text[name].dim() - 1))
    with torch.no_grad():
        dropped = model.predict(noisy, time, {**text, "keep_clip_g": keep, "keep_t5": keep})
        assert torch.equal(dropped, model.predict(noisy, time, zeros))


def test_latents_are_shifted_and_scaled(model: StableDiffusion3) -> None:
    pixels, noise = torch.rand(1, 3, 32, 48) * 2 - 1, torch.zeros(1, 16, 4, 6)
    with torch.no_grad():
        latents = model.encode_images(pixels, noise)
        mean, _ = model.autoencoder.posterior(pixels)
        torch.testing.assert_close(latents, (mean - 0.0609) * 1.5305)
        torch.testing.assert_close(
            model.decode_latents(latents), model.autoencoder.decode(mean), atol=1e-4, rtol=1e-4
        )


def test_positions_are_cut_from_the_middle_or_anywhere() -> None:
    table = torch.arange(24 * 24.0).view(1, -1, 1)
    places = Positions(24)
    middle = places.of(table, 4, 6)
    assert middle[0, 0] == 10 * 24 + 9 and middle.shape == (1, 24, 1)
    crops = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.999, 0.999]])
    several = places.of(table, 4, 6, crops)
    assert torch.equal(several[0], middle[0])
    assert several[1, 0] == 0 and several[2, -1] == 24 * 24 - 1
    with pytest.raises(InputError, match="too large"):
        places.of(table, 25, 4)


def test_positions_vary_by_picture(files: dict[str, Path]) -> None:
    model = load(files["medium"], pos_emb_random_crop_rate=0.5)
    draws = model.training_draws(0, [(f"p{i}", 1) for i in range(100)])["crops"]
    centred = (draws < 0).all(dim=1)
    assert 30 < centred.sum() < 70 and len(draws[~centred].unique(dim=0)) > 20
    text = encoded(model, ["a cat"])
    noisy, time = torch.randn(1, 16, 8, 8), torch.tensor([500.0])
    with torch.no_grad():
        plain = model.predict(noisy, time, text)
        same = model.predict(noisy, time, {**text, "crops": torch.full((1, 2), -1.0)})
        moved = model.predict(noisy, time, {**text, "crops": torch.zeros(1, 2)})
    torch.testing.assert_close(same, plain)
    assert not torch.allclose(moved, plain, atol=1e-3)


def test_scaled_positions() -> None:
    places = torch.arange(192)[None] * (64 / 192)
    table = sincos(places, places, 32)
    native = Positions(192, (64,))
    torch.testing.assert_close(
        native.of(table, 60, 64), Positions(192).of(table, 60, 64), atol=1e-5, rtol=1e-5
    )
    both = Positions(192, training_sizes([(512, 512), (1024, 1024)]))
    assert both.sizes == (32, 64)
    small, large = both.of(table, 32, 32).view(32, 32, -1), both.of(table, 64, 64).view(64, 64, -1)
    torch.testing.assert_close(small, large[::2, ::2])  # the same ground, half as fine
    assert both.sizes[0] == 32 and torch.equal(both.of(table, 30, 36), both.of(table, 30, 36))


def test_v_prediction_is_refused_and_too_many_swapped_blocks_are_lowered(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="velocity of a flow"):
        families.load(files["medium"], v_prediction=True)
    found = load(files["medium"], blocks_to_swap=32)
    assert found.notes == ("blocks_to_swap 32 is lowered to 2: this model has 4 blocks",)
    assert load(files["medium"], blocks_to_swap=2).notes == ()


@pytest.mark.parametrize("name", ["medium", "5-medium"])
def test_diffusers_folder(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Written by diffusers and transformers themselves, read as the single file is."""
    from safetensors.torch import save_file

    reference = reference_transformer(KINDS[name])
    reference.save_pretrained(tmp_path / "transformer")
    model = load(files[name])
    for key, folder in (("te1", "text_encoder"), ("te2", "text_encoder_2"), ("te3", "text_encoder_3")):
        (tmp_path / folder).mkdir()
        save_file(
            {k: v.clone() for k, v in model.text_encoders[key].state_dict().items()},
            tmp_path / folder / "model.safetensors",
        )
        heads = {"num_attention_heads": 4, "hidden_act": "quick_gelu" if key == "te1" else "gelu"}
        (tmp_path / folder / "config.json").write_text(json.dumps(heads if key != "te3" else {}))
    (tmp_path / "vae").mkdir()
    save_file(
        {k: v.clone() for k, v in model.vae.state_dict().items()},
        tmp_path / "vae" / "diffusion_pytorch_model.safetensors",
    )
    (tmp_path / "vae" / "config.json").write_text(
        json.dumps({"norm_num_groups": 8, "scaling_factor": 1.5305, "shift_factor": 0.0609})
    )
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    folder = load(tmp_path)
    state = from_diffusers(reference.state_dict())
    assert all(torch.equal(tensor, state[key]) for key, tensor in folder.denoiser.state_dict().items())
    a, b = encoded(model, ["a cat"]), encoded(folder, ["a cat"])
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_captions_that_sd_scripts_encoded_are_laid_out_as_ours(model: StableDiffusion3) -> None:
    """Names and sizes of the conditioning, without the batch."""
    own = model.encode_text(model.tokenize(["a cat"]))
    layout = model.caption_files(model.text_encoders)
    assert layout is not None and layout.columns.keys() == own.keys()
    for name, (array, start, end) in layout.columns.items():
        assert (*layout.shapes[array][:-1], end - start) == tuple(own[name].shape[1:]), name
    alone = model.caption_files(model.optional_text)
    assert alone is not None and alone.columns.keys() == {"t5"} and alone.shapes.keys() == {"t5_out"}
