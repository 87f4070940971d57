"""LoRA on the SD 1.x family's own modules, against numbers of another trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backend import families
from backend.errors import InputError
from backend.generate import engine, sampling
from backend.generate.request import Request
from backend.networks import NetworkSpec, create, from_weights, read_lora
from backend.networks.delta import delta, factors
from backend.settings import Settings
from backend.train.methods.network import merge_base_weights, network_arguments, title_of
from backend.weights.safefile import write_safetensors
from tests.networks.kinds import KINDS


@pytest.fixture(scope="module")
def model(golden_dir):
    torch.set_num_threads(1)
    loaded = families.load(golden_dir / "in/tiny_sd15_fp16.safetensors")
    loaded.to("cpu", torch.float32)
    return loaded


def test_modules_are_those_of_a_file_trained_by_sd_scripts(model, golden_dir):
    reference = json.loads((golden_dir / "keys/tiny-lora.json").read_text())["tensors"]
    found = create("networks.lora", model.adapter_modules(), NetworkSpec(dim=4, alpha=2)).weights()
    assert {name: list(tensor.shape) for name, tensor in found.items()} == {
        n: t[0] for n, t in reference.items()
    }
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


@pytest.mark.parametrize(("case", "clip_skip"), [("eps", None), ("clip_skip2", 2)])
def test_loss_and_every_gradient_agree_with_the_reference(model, golden_dir, case, clip_skip):
    given = load_file(golden_dir / f"loss_parity/{case}.safetensors")
    expected = json.loads((golden_dir / f"loss_parity/{case}.json").read_text())
    network = from_weights(read_lora(golden_dir / "in/lora_a.safetensors")[0], model.adapter_modules())
    network.train().attach()
    try:
        text = model.encode_text(model.tokenize(expected["captions"]), clip_skip)
        predicted = model.predict(given["noisy_latents"], given["timesteps"], text)
        loss = (predicted - given["noise"]).square().mean()
        loss.backward()
    finally:
        network.detach()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    norms = {n: p.grad.norm().item() for n, p in network.named_weights().items() if p.grad is not None}
    wanted = {name: norm for name, norm in expected["grad_norms"].items() if norm is not None}
    assert norms.keys() >= wanted.keys()
    assert {n: norms[n] for n in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-8)


@torch.no_grad()
def test_live_equals_deltas_in_the_weights(model, golden_dir):
    weights, _ = read_lora(golden_dir / "in/lora_a.safetensors")
    sites = list(model.adapter_modules())
    network = from_weights(weights, sites)
    latents, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([900, 30])

    def output():
        return model.predict(latents, timesteps, model.encode_text(model.tokenize(["a", "b c"])))

    plain = output()
    network.attach()
    live = output()
    network.detach()
    pairs, kept = factors(weights), [site.module.weight.clone() for site in sites]
    for site in sites:
        site.module.weight.add_(delta(pairs[f"lora_{site.name}"], shape=site.module.weight.shape))
    merged = output()
    for site, weight in zip(sites, kept, strict=True):
        site.module.weight.copy_(weight)
    torch.testing.assert_close(live, merged, atol=1e-5, rtol=1e-5)
    assert (live - plain).abs().max() > 1e-2
    assert torch.equal(output(), plain)


@pytest.mark.parametrize(
    ("module", "spec", "reference"),
    [
        ("lycoris.kohya", NetworkSpec(4, 2, 4, 1, args={"algo": "locon"}), "tiny-lyc_locon"),
        ("lycoris.kohya", NetworkSpec(4, 2, 4, 1, args={"algo": "lokr", "factor": "4"}), "tiny-lyc_lokr"),
        ("networks.dylora", NetworkSpec(4, 2, 4, 2, args={"unit": "2"}), "tiny-dylora"),
    ],
)
def test_names_and_shapes_are_those_of_other_trainers_files(model, golden_dir, module, spec, reference):
    wanted = json.loads((golden_dir / f"keys/{reference}.json").read_text())["tensors"]
    sites = [*model.adapter_modules(), *model.further_modules()]
    found = create(module, sites, spec).file_weights()
    assert {name: list(tensor.shape) for name, tensor in found.items()} == {
        n: t[0] for n, t in wanted.items()
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda name: name.replace(" ", "-"))
def test_every_kind_draws_pictures(model, kind, tmp_path):
    module, spec = KINDS[kind]
    sites = [*model.adapter_modules(), *model.further_modules()]
    network = create(module, sites, spec, seed=1)
    draw = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    write_safetensors(tmp_path / "a.safetensors", network.file_weights())
    request = Request(prompt="a cat", width=64, height=64, steps=1, seed=3)
    drawn = engine.resolve(model, request)
    plain = sampling.sample(model, drawn).final
    loaded = from_weights(read_lora(tmp_path / "a.safetensors")[0], sites).eval()
    loaded.attach()
    try:
        changed = sampling.sample(model, drawn).final
    finally:
        loaded.detach()
    assert torch.isfinite(changed).all()
    assert (changed - plain).abs().max() > 1e-3
    assert torch.equal(sampling.sample(model, drawn).final, plain)


def test_base_weights_are_in_the_model_before_anything_is_trained(golden_dir, model):
    fresh = families.load(golden_dir / "in/tiny_sd15_fp16.safetensors", dtype=torch.float32)
    name, other = "unet_mid_block_attentions_0_proj_in", "te_text_model_encoder_layers_0_mlp_fc1"
    files = [str(golden_dir / f"in/lora_{letter}.safetensors") for letter in "ab"]
    settings = Settings.from_flat({"base_weights": files, "base_weights_multiplier": ["0.5"]})
    merge_base_weights(settings, fresh)
    first, second = (factors(read_lora(Path(file))[0]) for file in files)
    before = {site.name: site.module.weight for site in model.adapter_modules()}
    after = {site.name: site.module.weight for site in fresh.adapter_modules()}
    for key in (name, other):
        shape = before[key].shape
        wanted = (
            before[key] + delta(first[f"lora_{key}"], 0.5, shape) + delta(second[f"lora_{key}"], 1.0, shape)
        )
        torch.testing.assert_close(after[key], wanted, atol=1e-6, rtol=1e-6)
    assert len(create("networks.lora", list(fresh.adapter_modules()), NetworkSpec()).adapters()) == 264


@pytest.mark.parametrize("texts", [["a"], ["1", "2", "3"], ["inf"]])
def test_strengths_that_make_no_sense_are_refused(model, texts):
    settings = Settings.from_flat({"base_weights": ["a", "b"], "base_weights_multiplier": texts})
    with pytest.raises(InputError, match="base_weights_multiplier: expected up to 2 numbers"):
        merge_base_weights(settings, model)


def test_arguments_reach_the_network_that_can_use_them():
    settings = Settings.from_flat({"network_module": "lycoris.kohya", "algo": "lokr", "factor": 4, "unit": 2})
    arguments = network_arguments(settings)
    assert arguments["algo"] == "lokr" and arguments["factor"] == "4"
    assert "unit" not in arguments and "block_dims" not in arguments
    assert title_of(settings) == "LoKr, rank 4"
