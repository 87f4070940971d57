"""LoRA on the SD 1.x family's own modules, against numbers of another trainer."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from backend import families
from backend.networks import NetworkSpec, create, from_weights, read_lora
from backend.networks.delta import delta, factors


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
