"""What holds for every kind: it starts without effect, trains, resumes, saves, loads, merges."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from backend.networks import Network, NetworkSpec, create, from_weights, known_modules, read_lora
from backend.networks.detect import is_network_weight, kind_of
from backend.system import adapters
from backend.system.headers import read_header
from backend.weights.safefile import write_safetensors
from tests.networks.kinds import KINDS

RATES = {"unet": 1e-2, "text_encoder": 1e-2}


@pytest.fixture(params=KINDS, ids=lambda name: name.replace(" ", "-"))
def kind(request):
    return request.param


def made(model, kind, seed=0):
    module, spec = KINDS[kind]
    return create(module, model.everything(), spec, seed=seed)


def train(model, network, optimizer, steps):
    """The trainer's steps in short: random numbers by step, forward, backward, step."""
    network.train().attach()
    try:
        for step in steps:
            torch.manual_seed(100 + step)
            sum(out.square().mean() for out in model(step)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    finally:
        network.detach()


def optimizer_of(network):
    return torch.optim.AdamW(network.parameter_groups(RATES), lr=1e-3)


class Trained:
    """Every kind after two steps, made once for all tests."""

    def __init__(self, model):
        self.model, self.networks, self.optimizers = model, {}, {}

    def __call__(self, kind):
        if kind not in self.networks:
            network = made(self.model, kind)
            optimizer = optimizer_of(network)
            train(self.model, network, optimizer, range(2))
            self.networks[kind], self.optimizers[kind] = network.eval(), optimizer
        return self.networks[kind]


@pytest.fixture(scope="module")
def trained(model):
    return Trained(model)


@torch.no_grad()
def effect(model, network):
    network.eval().attach()
    try:
        return model()
    finally:
        network.detach()


def test_every_network_module_is_in_the_table():
    assert {module for module, _ in KINDS.values()} == set(known_modules())


def test_starts_without_effect_and_detaches_whole(model, kind):
    plain, names = model(), list(model.unet.state_dict())
    network = made(model, kind)
    assert isinstance(network, Network)
    for live, before in zip(effect(model, network), plain, strict=True):
        torch.testing.assert_close(live, before, atol=1e-5, rtol=1e-5)
    assert list(model.unet.state_dict()) == names
    assert torch.equal(model()[0], plain[0])


def test_trains(model, kind, trained):
    network, fresh = trained(kind), made(model, kind)
    parameters = dict(network.named_parameters())
    moved = [n for n, p in fresh.named_parameters() if not torch.equal(p, parameters[n])]
    assert len(moved) > 0.5 * len(parameters)
    plain = model()
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(effect(model, network), plain, strict=True))
    assert not any(p.requires_grad for p in model.unet.parameters())


def test_resumes_to_the_bit(model, kind, trained):
    straight, optimizer = trained(kind), trained.optimizers[kind]
    weights, state = straight.weights(), copy.deepcopy(optimizer.state_dict())
    train(model, straight, optimizer, [2])
    resumed = made(model, kind, seed=9)
    assert resumed.load_weights(weights) == []
    later = optimizer_of(resumed)
    later.load_state_dict(state)
    train(model, resumed, later, [2])
    ours, theirs = resumed.weights(), straight.eval().weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert any(not torch.equal(weights[name], tensor) for name, tensor in theirs.items())


def test_file_has_the_same_effect_and_is_equal_to_the_bit_when_saved_again(model, kind, trained, tmp_path):
    network = trained(kind)
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_safetensors(first, network.file_weights())
    loaded = from_weights(read_lora(first)[0], model.everything())
    write_safetensors(second, loaded.file_weights())
    assert first.read_bytes() == second.read_bytes()
    assert loaded.unused == ()
    for a, b in zip(effect(model, network), effect(model, loaded), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    assert all(is_network_weight(name) for name in loaded.file_weights())


def test_file_and_header_are_recognised_alike(kind, trained, tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, trained(kind).file_weights())
    facts = adapters.describe(read_header(path))
    assert facts is not None
    assert facts.details["network"] == kind_of(trained(kind).file_weights())
    words = {
        "lora": "LoRA",
        "lora dora": "DoRA",
        "loha tucker": "LoHa",
        "ia3": "IA3",
        "oft": "OFT",
        "norm": "norm",
    }
    assert words.get(kind, "") in facts.details["network"]


def test_deltas_in_the_weights_equal_the_live_effect(model, kind, trained):
    network, plain = trained(kind), copy.deepcopy((model.unet.state_dict(), model.text.state_dict()))
    live = effect(model, network)
    network.merge(1.0)
    try:
        merged = model()
    finally:
        model.unet.load_state_dict(plain[0])
        model.text.load_state_dict(plain[1])
    for a, b in zip(live, merged, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_strength_goes_through_nothing(model, kind, trained):
    network = trained(kind)
    network.strength = 0.0
    try:
        for a, b in zip(effect(model, network), model(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    finally:
        network.strength = 1.0


@pytest.mark.parametrize("kind", ["lora dora", "ia3", "boft", "locon and norm"])
def test_two_networks_attached_at_once_add_their_changes(model, kind, trained):
    other = create("networks.lora", model.sites(), NetworkSpec(dim=2))
    draw = torch.Generator().manual_seed(4)
    for parameter in other.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * 0.05)
    network = trained(kind)
    host = nn.ModuleList([model.unet, model.text])
    kept = copy.deepcopy(host.state_dict())
    other.attach()
    live = effect(model, network)
    other.detach()
    changes = [
        (name, adapter.weight_delta(), adapter.bias_delta())
        for one in (other, network)
        for name, adapter in one.adapters().items()
    ]
    modules = {name: s.module for s in model.everything() for name in (f"lora_{s.name}", f"oft_{s.name}")}
    for name, change, bias in changes:
        modules[name].weight.data += change
        if bias is not None:
            modules[name].bias.data += bias
    together = model()
    host.load_state_dict(kept)
    for a, b in zip(live, together, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


CONSTRAINED = [
    name
    for name in KINDS
    if not {"dora", "oft", "ia3", "boft", "glora", "norm", "diag-oft"} & set(name.split())
]


@pytest.mark.parametrize("name", [name for name in CONSTRAINED if name != "loha tucker"])
def test_norms_can_be_held_down(model, name, trained):
    network = copy.deepcopy(trained(name))
    assert network.can_constrain()
    before = {n: a.weight_delta() for n, a in network.adapters().items()}
    limit = float(torch.stack([delta.norm() for delta in before.values()]).median())
    network.constrain(limit)
    for key, adapter in network.adapters().items():
        after, length = adapter.weight_delta(), before[key].norm()
        torch.testing.assert_close(
            after, before[key] * (limit / length.clamp(min=limit)), atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("name", ["lora dora", "oft", "ia3", "glora", "locon and norm", "loha tucker"])
def test_norms_of_what_is_no_product_cannot(model, name):
    assert not made(model, name).can_constrain()
