"""LoRA: which modules, what it computes, how it attaches."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from backend.errors import InputError
from backend.networks import Network, NetworkSpec, create, from_weights, read_lora
from backend.networks.delta import delta, factors


def filled(network, seed: int = 1, scale: float = 0.05):
    """Random values in all down and up weights."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * scale)
    return network


class One:
    """A single module to attach to."""

    part, container = "unet", "attention"

    def __init__(self, module: nn.Module, name: str = "unet_x", container: str = "attention") -> None:
        self.module, self.name, self.container = module.requires_grad_(False), name, container


def adapter_on(module: nn.Module, **spec):
    network = create("networks.lora", [One(module)], NetworkSpec(**{"dim": 4, **spec}))
    return filled(network, scale=0.5)


@pytest.mark.parametrize(("conv_dim", "count"), [(None, 264), (4, 350)])
def test_modules_of_sd15_are_sd_scripts_own(full_width, root, conv_dim, count):
    reference = json.loads((root / "tests/golden/sd15_lora_rank4.json").read_text())["modules"]
    wanted = {}
    for name, (down, up, always) in reference.items():
        if always or conv_dim:
            wanted |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": []}
    network = create("networks.lora", full_width.sites(), NetworkSpec(dim=4, alpha=2, conv_dim=conv_dim))
    found = {name: list(tensor.shape) for name, tensor in network.weights().items()}
    assert found == wanted
    assert len(found) == 3 * count


def test_choosing_convolutions_once_does_not_change_later_networks(model):
    create("networks.lora", model.sites(), NetworkSpec(conv_dim=2))
    assert len(create("networks.lora", model.sites(), NetworkSpec()).weights()) == 3 * 264


def test_rank_and_alpha_defaults(model):
    weights = create("networks.lora", model.sites(), NetworkSpec(conv_dim=2)).weights()
    linear, conv = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_resnets_0_conv1"
    assert weights[f"{linear}.lora_down.weight"].shape[0] == 4
    assert weights[f"{linear}.alpha"] == 4
    assert weights[f"{conv}.alpha"] == 1
    assert weights["lora_unet_mid_block_resnets_0_time_emb_proj.lora_down.weight"].shape[0] == 4


def test_a_new_lora_changes_nothing_until_trained(model):
    before = model()
    network = create("networks.lora", model.sites(), NetworkSpec(dim=4))
    network.attach()
    after = model()
    network.detach()
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_attaching_leaves_tree_and_names_alone_and_detaching_restores(model):
    names, tree = list(model.unet.state_dict()), [name for name, _ in model.unet.named_modules()]
    before = model()[0]
    network = filled(create("networks.lora", model.sites(), NetworkSpec(dim=2, conv_dim=2)))
    network.attach()
    changed = model()[0]
    assert list(model.unet.state_dict()) == names
    assert [name for name, _ in model.unet.named_modules()] == tree
    network.detach()
    assert not torch.equal(before, changed)
    assert torch.equal(before, model()[0])
    assert not any("forward" in module.__dict__ for module in model.unet.modules())


@pytest.mark.parametrize("first_off", [0, 1])
def test_two_networks_add_up_and_come_off_in_any_order(first_off):
    module, x = nn.Linear(6, 5), torch.randn(3, 6)
    plain = module(x)
    nets = [adapter_on(module), filled(create("networks.lora", [One(module)], NetworkSpec(dim=2)), seed=9)]
    alone = []
    for net in nets:
        net.attach()
        alone.append(module(x) - plain)
        net.detach()
    for net in nets:
        net.attach()
    torch.testing.assert_close(module(x), plain + alone[0] + alone[1])
    nets[first_off].detach()
    torch.testing.assert_close(module(x), plain + alone[1 - first_off])
    nets[1 - first_off].detach()
    assert torch.equal(module(x), plain)


def test_an_own_forward_of_the_module_survives():
    module, x = nn.Linear(3, 3), torch.randn(2, 3)
    module.forward = lambda value: value * 2
    network = adapter_on(module)
    network.attach()
    assert not torch.equal(module(x), x * 2)
    network.detach()
    assert torch.equal(module(x), x * 2)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 5), (2, 7, 6)),
        (nn.Conv2d(6, 5, 1), (2, 6, 8, 8)),
        (nn.Conv2d(6, 5, 3, stride=2, padding=1), (2, 6, 9, 9)),
    ],
)
@pytest.mark.parametrize("strength", [1.0, -0.4])
def test_effect_equals_the_formula_on_the_weight(module, shape, strength):
    network = adapter_on(module, alpha=3.0, conv_dim=4, conv_alpha=3.0)
    x = torch.randn(shape)
    network.attach()
    network.strength = strength
    live = module(x)
    network.detach()
    adapter = network.adapters()["lora_unet_x"]
    up, down = adapter.lora_up.weight, adapter.lora_down.weight
    by_hand = strength * 3.0 / 4 * torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1))
    module.weight.data += by_hand.detach().reshape(module.weight.shape)
    torch.testing.assert_close(live, module(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adapter.weight_delta() * strength, by_hand.reshape(module.weight.shape))


def test_initial_weights_do_not_depend_on_order_or_choice(model):
    sites = model.sites()
    spec = NetworkSpec(dim=3)
    whole = create("networks.lora", sites, spec, seed=5).weights()
    back = create("networks.lora", sites[::-1], spec, seed=5).weights()
    few = create("networks.lora", sites[100:110], spec, seed=5).weights()
    other = create("networks.lora", sites, spec, seed=6).weights()
    assert all(torch.equal(whole[name], back[name]) for name in whole)
    assert all(torch.equal(whole[name], few[name]) for name in few)
    name = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    assert not torch.equal(whole[name], other[name])


def test_initial_down_weights_are_uniform_within_one_over_the_root_of_the_inputs():
    network = create("networks.lora", [One(nn.Linear(400, 8))], NetworkSpec(dim=64))
    down = network.weights()["lora_unet_x.lora_down.weight"]
    bound = 1 / math.sqrt(400)
    assert down.abs().max() <= bound
    assert abs(down.std().item() - bound / math.sqrt(3)) < 0.02 * bound
    assert not network.weights()["lora_unet_x.lora_up.weight"].any()


def test_dropouts_act_in_training_only():
    module, x = nn.Linear(6, 5), torch.randn(4, 7, 6)
    dropped = adapter_on(module, dropout=0.5, rank_dropout=0.5, module_dropout=0.5)
    plain = adapter_on(module)
    outputs = []
    for network in (dropped.eval(), plain.eval()):
        network.attach()
        outputs.append(module(x))
        network.detach()
    assert torch.equal(*outputs)


def showing_ranks(module: nn.Module, **spec):
    """A network whose effect is the rank's activations themselves, all 1 before dropouts."""
    module.weight.data.zero_()
    network = create("networks.lora", [One(module)], NetworkSpec(dim=4, conv_dim=4, conv_alpha=4, **spec))
    adapter = network.adapters()["lora_unet_x"]
    adapter.lora_down.weight.data.fill_(1 / adapter.lora_down.weight[0].numel())
    adapter.lora_up.weight.data.copy_(torch.eye(4).reshape(adapter.lora_up.weight.shape))
    network.train().attach()
    return network


def test_rank_dropout_takes_whole_ranks_of_a_picture_and_scales_the_rest():
    module = nn.Linear(6, 4, bias=False)
    showing_ranks(module, rank_dropout=0.25)
    torch.manual_seed(3)
    values = module(torch.ones(200, 7, 6))
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (values == values[:, :1]).all()
    assert 0.2 < (values[:, 0] == 0).float().mean() < 0.3


def test_rank_dropout_of_convolutions_is_by_channel():
    module = nn.Conv2d(6, 4, 3, bias=False)
    showing_ranks(module, rank_dropout=0.5)
    values = module(torch.ones(20, 6, 5, 5))
    torch.testing.assert_close(values.unique().round(decimals=4), torch.tensor([0.0, 2.0]))
    assert ((values > 1) == (values[:, :, :1, :1] > 1)).all()


def test_dropout_takes_single_values_and_scales_the_rest():
    module = nn.Linear(6, 4, bias=False)
    showing_ranks(module, dropout=0.5)
    values = module(torch.ones(50, 7, 6))
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 2.0]))
    assert not (values == values[:, :1]).all()


def test_module_dropout_leaves_the_module_out_without_rescaling():
    module = nn.Linear(6, 4, bias=False)
    showing_ranks(module, module_dropout=0.3)
    torch.manual_seed(0)
    outputs = torch.stack([module(torch.ones(2, 6)) for _ in range(400)])
    torch.testing.assert_close(outputs.unique(), torch.tensor([0.0, 1.0]))
    assert (outputs == outputs[:, :1, :1]).all()
    assert 0.24 < (outputs == 0).float().mean() < 0.36


def test_gradients_are_equal_under_checkpointing_with_dropout(model):
    network = create("networks.lora", model.sites(), NetworkSpec(dim=2, dropout=0.2, module_dropout=0.2))
    filled(network).train()
    network.attach()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.unet.enable_gradient_checkpointing()
        model.unet.train()
        torch.manual_seed(4)
        model()[0].square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
        network.zero_grad()
    model.unet.disable_gradient_checkpointing()
    model.unet.eval()
    network.detach()
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert sum(bool(g.any()) for g in gradients[0]) > 0.6 * len(gradients[0])


def test_autocast_keeps_parameters_and_gradients_in_float32():
    module, x = nn.Linear(6, 5), torch.randn(4, 6)
    network = adapter_on(module)
    network.attach()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    out.float().sum().backward()
    network.detach()
    assert out.dtype == torch.bfloat16
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())


def test_a_base_in_half_precision_works_without_autocast():
    module, x = nn.Conv2d(6, 5, 3).bfloat16(), torch.randn(2, 6, 5, 5).bfloat16()
    network = adapter_on(module, conv_dim=4)
    plain = module(x)
    network.attach()
    out = module(x)
    network.detach()
    assert out.dtype == torch.bfloat16
    assert not torch.equal(out, plain)


def test_compiles_without_graph_breaks_and_follows_the_strength():
    torch._dynamo.reset()
    module = nn.Sequential(nn.Linear(6, 6), nn.Conv1d(4, 4, 1))
    network = create(
        "networks.lora",
        [One(module[0])],
        NetworkSpec(dim=2, dropout=0.1, rank_dropout=0.1, module_dropout=0.1),
    )
    filled(network).train().attach()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    x = torch.randn(3, 4, 6)
    for strength in (1.0, 0.5):
        network.strength = strength
        torch.manual_seed(2)
        expected = module(x)
        torch.manual_seed(2)
        torch.testing.assert_close(compiled(x), expected)
    network.detach()


def test_groups_follow_the_rates_and_freeze_the_rest(model):
    network = create("networks.lora", model.sites(), NetworkSpec(dim=2))
    assert list(network.parts()) == ["text_encoder", "unet"]
    groups = network.parameter_groups({"unet": 1e-4, "text_encoder": 5e-5})
    assert [(g["name"], g["lr"], len(g["params"])) for g in groups] == [
        ("text_encoder", 5e-5, 144),
        ("unet", 1e-4, 384),
    ]
    groups = network.parameter_groups({"unet": 1e-4})
    assert [g["name"] for g in groups] == ["unet"]
    trained = {name for name, p in network.named_weights().items() if p.requires_grad}
    assert trained
    assert all(name.startswith("lora_unet_") for name in trained)


def test_it_is_a_network():
    assert isinstance(adapter_on(nn.Linear(3, 3)), Network)


def test_arguments_as_text_count_as_fields(model):
    spec = NetworkSpec(dim=2, args={"conv_dim": "3", "conv_alpha": "1.5", "rank_dropout": "None"})
    weights = create("networks.lora", model.sites(), spec).weights()
    name = "lora_unet_mid_block_resnets_0_conv1"
    assert weights[f"{name}.lora_down.weight"].shape[0] == 3
    assert weights[f"{name}.alpha"] == 1.5


def test_unknown_and_unreadable_arguments_are_named_together(model):
    spec = NetworkSpec(args={"conv_dmi": "3", "conv_alpha": "much"})
    with pytest.raises(InputError) as caught:
        create("networks.lora", model.sites(), spec)
    text = caught.value.text()
    assert "conv_dmi" in text
    assert "did you mean conv_dim" in text
    assert "conv_alpha" in text
    assert "much" in text


def test_unknown_network_kind_is_named_with_what_is_known():
    with pytest.raises(InputError, match=r"networks\.lorra[\s\S]*did you mean networks\.lora"):
        create("networks.lorra", [], NetworkSpec())


def test_reference_lora_live_equals_its_deltas_in_the_weights(model, golden_dir):
    weights, _ = read_lora(golden_dir / "in/lora_a.safetensors")
    network = from_weights(weights, model.sites())
    assert len(network.weights()) == 3 * 350
    assert not network.unused
    network.attach()
    network.strength = 0.8
    live = model()
    network.detach()
    pairs = factors(weights)
    kept = {}
    for site in model.sites():
        weight = site.module.weight
        kept[site.name] = weight.data.clone()
        weight.data += delta(pairs[f"lora_{site.name}"], 0.8, weight.shape)
    merged = model()
    for site in model.sites():
        site.module.weight.data.copy_(kept[site.name])
    for a, b, plain in zip(live, merged, model(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert (a - plain).abs().max() > 1e-3
