"""LoRA files: reading, kinds, families, dialects, and what other programs make of ours."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.networks import NetworkSpec, create, from_weights, read_lora, require_fit
from backend.networks.delta import delta, factors, norm
from backend.networks.detect import family_of, kind_of
from backend.networks.dialects import dotted, to_diffusers, to_kohya
from backend.weights.safefile import write_safetensors, write_torch


@pytest.fixture
def trained(model):
    """A LoRA with an effect, alpha 2 of rank 4, conv rank 2."""
    network = create("networks.lora", model.sites(), NetworkSpec(dim=4, alpha=2, conv_dim=2), seed=3)
    draw = torch.Generator().manual_seed(8)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * 0.05)
    return network


def effect(model, network):
    network.attach()
    try:
        return model()
    finally:
        network.detach()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_saved_loaded_and_saved_again_is_equal_to_the_bit(model, trained, tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write = write_torch if suffix == ".pt" else write_safetensors
    write(first, trained.weights())
    loaded = from_weights(read_lora(first)[0], model.sites())
    write(second, loaded.weights())
    again = read_lora(second)[0]
    assert all(torch.equal(tensor, again[name]) for name, tensor in trained.weights().items())
    assert again.keys() == trained.weights().keys()
    if suffix == ".safetensors":
        assert first.read_bytes() == second.read_bytes()
    assert torch.equal(effect(model, trained)[0], effect(model, loaded)[0])


def test_ranks_and_alphas_come_from_the_file_module_by_module(model, trained):
    weights = trained.weights()
    name = "lora_unet_mid_block_attentions_0_proj_in"
    weights[f"{name}.lora_down.weight"] = torch.randn(7, 96, 1, 1)
    weights[f"{name}.lora_up.weight"] = torch.randn(96, 7, 1, 1)
    weights[f"{name}.alpha"] = torch.tensor(3.5)
    loaded = from_weights(weights, model.sites())
    assert loaded.adapters()[name].scale == pytest.approx(0.5)
    assert loaded.weights()[f"{name}.lora_down.weight"].shape[0] == 7


def test_only_modules_of_the_file_get_a_lora(model, trained):
    text = {name: tensor for name, tensor in trained.weights().items() if name.startswith("lora_te_")}
    loaded = from_weights(text, model.sites())
    assert list(loaded.parts()) == ["text_encoder"]
    assert len(loaded.weights()) == len(text)


def test_a_missing_alpha_means_the_rank(model, trained):
    weights = {name: tensor for name, tensor in trained.weights().items() if not name.endswith(".alpha")}
    loaded = from_weights(weights, model.sites())
    assert {adapter.scale for adapter in loaded.adapters().values()} == {1.0}
    assert {pair.scale for pair in factors(weights).values()} == {1.0}


def test_names_that_nothing_takes_are_reported(model, trained):
    weights = trained.weights()
    few = create("networks.lora", model.sites()[:72], NetworkSpec(dim=4))
    left = few.load_weights(weights)
    assert len(left) == 3 * (350 - 72)
    assert all(name in weights and name.startswith("lora_unet_") for name in left)
    name = few.weights().keys() & weights.keys()
    assert all(torch.equal(few.weights()[n], weights[n]) for n in name)


def test_another_rank_is_refused_before_anything_is_copied(model, trained):
    other = create("networks.lora", model.sites(), NetworkSpec(dim=8))
    before = other.weights()
    with pytest.raises(InputError, match="dim_from_weights") as caught:
        other.load_weights(trained.weights())
    assert caught.value.problems[0].key == "network_dim"
    assert "[4, " in caught.value.text()
    assert "[8, " in caught.value.text()
    assert all(torch.equal(before[name], tensor) for name, tensor in other.weights().items())


def test_linear_weights_fit_a_1x1_convolution_and_the_reverse(model, trained):
    flat = {
        n: t.flatten(1) if t.dim() == 4 and t.shape[2:] == (1, 1) else t for n, t in trained.weights().items()
    }
    for name in list(flat):  # up weights of 3x3 kernels stay as they are
        if flat[name].dim() == 2 and "resnets" in name:
            flat[name] = trained.weights()[name]
    loaded = from_weights(flat, model.sites())
    assert torch.equal(effect(model, trained)[0], effect(model, loaded)[0])


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["lllite_unet_x.down.0.weight"], "ControlNet-LLLite"),
        (["emb_params"], "textual inversion embedding"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "base model"),
        (["lora_unet_x.lora_down.weight", "lora_unet_x.t_lora"], "lora_unet_x.t_lora"),
        (["something.else"], "something.else"),
        ([], "no tensors"),
    ],
)
def test_other_kinds_are_refused_by_name(model, names, kind):
    with pytest.raises(InputError, match=kind):
        from_weights({name: torch.zeros(2, 2) for name in names}, model.sites())


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["lora_unet_x.hada_w1_a", "lora_unet_x.alpha", "lora_unet_x.dora_scale"], "LoHa"),
        (["lora_unet_x.lokr_w1", "lora_unet_x.lokr_w2_a"], "LoKr"),
        (["oft_unet_x.oft_blocks"], "OFT"),
        (["lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", "lora_unet_x.dora_scale"], "DoRA"),
        (["lora_unet_x.lora_down.weight", "lora_unet_x.lora_mid.weight"], "LoCon with Tucker decomposition"),
        (["lora_unet_x.a1.weight"], "GLoRA"),
        (["lora_unet_x.on_input", "lora_unet_x.weight"], "IA3"),
        (["lora_unet_x.diff"], "full difference"),
        (["lora_unet_x.w_norm", "lora_unet_x.lora_down.weight"], "LoRA"),
        (["lora_unet_x.w_norm"], "norm weights (LyCORIS)"),
    ],
)
def test_kinds_by_their_names(names, kind):
    assert kind_of(names) == kind


def test_kind_of_a_lora():
    assert kind_of(["lora_unet_x.lora_down.weight"]) == "LoRA"
    assert kind_of(["unet.x.lora_A.weight"]) == "LoRA"
    assert kind_of(["x"]) is None


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({"unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": (4, 768)}, "SD 1.x"),
        ({"unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": (4, 1024)}, "SD 2.x"),
        ({"unet_input_blocks_4_1_proj_in": (4, 640)}, "SDXL"),
        ({"te1_text_model_encoder_layers_0_mlp_fc1": (4, 768)}, "SDXL"),
        ({"unet_joint_blocks_0_x_block_attn_qkv": (4, 1536)}, "SD 3"),
        ({"unet_double_blocks_0_img_attn_qkv": (4, 3072)}, "Flux"),
    ],
)
def test_family_from_names_and_widths(shapes, family):
    assert (family_of(shapes) or "").startswith(family)


def test_a_lora_of_another_family_is_refused_with_both_names(full_width):
    sdxl = {
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": torch.zeros(4, 640),
        "lora_unet_input_blocks_4_1_proj_in.lora_up.weight": torch.zeros(640, 4),
    }
    with pytest.raises(InputError, match=r"this LoRA is for SDXL; the model is SD 1\.x"):
        from_weights(sdxl, full_width.sites())


def test_an_sd2_lora_is_told_from_an_sd1_one_by_its_width(full_width):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    sd2 = {f"{name}.lora_down.weight": torch.zeros(4, 1024), f"{name}.lora_up.weight": torch.zeros(1280, 4)}
    with pytest.raises(InputError, match=r"this LoRA is for SD 2\.x; the model is SD 1\.x"):
        from_weights(sd2, full_width.sites())


def test_a_lora_without_the_parts_in_use_is_refused(model, trained):
    text = {name: tensor for name, tensor in trained.weights().items() if name.startswith("lora_te_")}
    with pytest.raises(InputError, match="nothing for the parts"):
        require_fit(text, [site for site in model.sites() if site.part == "unet"])
    assert require_fit(text, model.sites()) == "LoRA"


def test_a_lora_of_other_sizes_is_refused(trained, full_width):
    weights = {name: tensor for name, tensor in trained.weights().items() if "attentions" in name}
    with pytest.raises(InputError, match="other sizes"):
        require_fit(weights, full_width.sites())


def test_reference_sdxl_lora_is_refused(model, golden_dir):
    weights, _ = read_lora(golden_dir / "in/xl_lora.safetensors")
    with pytest.raises(InputError, match="SDXL"):
        from_weights(weights, model.sites())


def test_deltas_and_their_norms(model, trained):
    for name, pair in list(factors(trained.weights()).items())[::40]:
        product = trained.adapters()[name].weight_delta()
        torch.testing.assert_close(delta(pair), product)
        torch.testing.assert_close(delta(pair, -0.5), -0.5 * product)
        assert norm(pair) == pytest.approx(product.norm().item(), rel=1e-4)


def test_a_delta_for_a_weight_of_another_shape_is_refused(trained):
    pair = factors(trained.weights())["lora_unet_mid_block_attentions_0_proj_in"]
    assert delta(pair, shape=(96, 96)).shape == (96, 96)
    with pytest.raises(InputError, match="another model"):
        delta(pair, shape=(96, 97))


def test_no_pair_is_named(trained):
    weights = trained.weights()
    del weights["lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"]
    with pytest.raises(InputError, match="lora_unet_mid_block_attentions_0_proj_in"):
        factors(weights)


def test_dotted_names_are_the_paths_of_the_modules(model):
    paths = {f"unet.{path}" for path, _ in model.unet.named_modules()}
    names = [site.name for site in model.sites() if site.part == "unet"]
    assert {dotted(f"lora_{name}") for name in names} <= paths
    text = "lora_te_text_model_encoder_layers_3_self_attn_out_proj"
    assert dotted(text) == "text_encoder.text_model.encoder.layers.3.self_attn.out_proj"


def test_diffusers_dialect_and_back_has_the_same_effect(model, trained):
    theirs = to_diffusers(trained.weights())
    assert not any("alpha" in name for name in theirs)
    back = from_weights(theirs, model.sites())
    assert len(back.weights()) == len(trained.weights())
    for a, b in zip(effect(model, trained), effect(model, back), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    names = {n for n in trained.weights() if not n.endswith(".alpha")}
    assert {n for n in to_kohya(theirs) if not n.endswith(".alpha")} == names


def test_older_diffusers_names_and_names_without_text_model_are_read(model, trained):
    theirs = {
        name.replace("lora_A", "lora.down").replace("lora_B", "lora.up").replace("text_model.", ""): tensor
        for name, tensor in to_diffusers(trained.weights()).items()
    }
    fresh = create("networks.lora", model.sites(), NetworkSpec(dim=4, conv_dim=2))
    assert fresh.load_weights(theirs) == []
    for a, b in zip(effect(model, trained), effect(model, fresh), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_diffusers_loads_our_file_whole_and_computes_the_same(model, trained, tmp_path, dialect, caplog):
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging as diffusers_logging

    path = tmp_path / "lora.safetensors"
    weights = trained.weights()
    write_safetensors(path, weights if dialect == "kohya" else to_diffusers(weights), {"format": "pt"})
    expected, plain = effect(model, trained), model()
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=model.text,
        tokenizer=None,
        unet=model.unet,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    diffusers_logging.enable_propagation()
    caplog.set_level(logging.WARNING)
    pipe.load_lora_weights(path)
    try:
        layers = [
            n
            for m in (model.unet, model.text)
            for n, _ in m.named_modules()
            if n.endswith("lora_A.default_0")
        ]
        found = model()
    finally:
        pipe.unload_lora_weights()
    assert len(layers) == 350
    for ours, theirs, without in zip(expected, found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(theirs, without, atol=1e-3)
    complaints = [r.getMessage() for r in caplog.records if "unexpected" in r.getMessage().lower()]
    assert not complaints
    assert torch.equal(model()[0], plain[0])


def test_metadata_is_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"ss_network_dim": "4"})
    assert read_lora(tmp_path / "a.safetensors")[1] == {"ss_network_dim": "4"}


def test_a_missing_file_is_named_with_the_nearest(tmp_path):
    (tmp_path / "mylora.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"mylor\.safetensors[\s\S]*mylora\.safetensors"):
        read_lora(tmp_path / "mylor.safetensors")


def test_a_cut_file_is_named(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.ones(2000)}, path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match="cut"):
        read_lora(path)


class Bomb:
    def __reduce__(self):
        return __import__("os").system, ("touch boom",)


def test_code_in_a_pickle_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"a": Bomb()}))
    with pytest.raises(InputError, match="system"):
        read_lora(tmp_path / "bad.pt")
    assert not (tmp_path / "boom").exists()


def test_a_state_dict_inside_a_pickle_is_taken_out(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "a.ckpt")
    weights, metadata = read_lora(tmp_path / "a.ckpt")
    assert torch.equal(weights["a"], torch.ones(2))
    assert metadata == {}


def test_a_pickle_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(InputError, match="no table of tensors"):
        read_lora(tmp_path / "a.pt")
