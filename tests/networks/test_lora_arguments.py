"""Arguments of LoRA and its nearest relatives: blocks, rates, LoRA+, LoRA-FA, DyLoRA, OFT."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from backend.errors import InputError
from backend.networks import NetworkSpec, create, from_weights
from backend.networks.blocks import TABLES, weights
from tests.networks.conftest import Site

SDXL, SD = TABLES
BLOCK_DIMS = "2,4,4,4,8,8,8,8,12,12,12,12,16,12,12,12,12,8,8,8,8,4,4,4,2"
CONV_DIMS = "2,2,2,2,4,4,4,4,6,6,6,6,8,6,6,6,6,4,4,4,4,2,2,2,2"


def lora(model, module="networks.lora", dim=4, **args):
    return create(module, model.sites(), NetworkSpec(dim=dim, alpha=1, args=args))


def ranks(network):
    return {n: t.shape[0] for n, t in network.weights().items() if n.endswith("lora_down.weight")}


def refusal(model, module="networks.lora", **args):
    with pytest.raises(InputError) as caught:
        lora(model, module, **args)
    return caught.value.text()


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("unet_down_blocks_0_attentions_0_proj_in", 1),
        ("unet_down_blocks_1_resnets_1_conv1", 5),
        ("unet_down_blocks_2_downsamplers_0_conv", 9),
        ("unet_down_blocks_3_resnets_1_conv2", 11),
        ("unet_mid_block_attentions_0_proj_in", 12),
        ("unet_up_blocks_0_resnets_0_conv1", 13),
        ("unet_up_blocks_0_upsamplers_0_conv", 15),
        ("unet_up_blocks_3_attentions_2_proj_out", 24),
        ("te_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_blocks_of_sd(name, block):
    assert SD.index(name) == block


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("unet_time_embed_0", 0),
        ("unet_label_emb_0_0", 0),
        ("unet_input_blocks_4_1_proj_in", 5),
        ("unet_middle_block_1_proj_in", 11),
        ("unet_output_blocks_8_0_in_layers_2", 21),
        ("unet_out_2", 22),
        ("unet_time_embedding_linear_1", None),
        ("te1_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_blocks_of_sdxl(name, block):
    assert SDXL.index(name) == block


def test_every_module_of_sd15_is_in_a_block(full_width):
    blocks = {SD.index(site.name) for site in full_width.sites() if site.part == "unet"}
    assert blocks == set(range(1, 25))


def test_ranks_by_block(model):
    found = ranks(lora(model, dim=5, block_dims=BLOCK_DIMS, conv_block_dims=CONV_DIMS))
    assert found["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"] == 4
    assert found["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"] == 16
    assert found["lora_unet_mid_block_resnets_0_conv1.lora_down.weight"] == 8
    assert found["lora_unet_mid_block_resnets_0_time_emb_proj.lora_down.weight"] == 16
    assert found["lora_unet_up_blocks_3_attentions_2_proj_in.lora_down.weight"] == 2
    assert found["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] == 5
    assert len(found) == 350
    assert "lora_unet_mid_block_resnets_0_conv1.lora_down.weight" not in ranks(
        lora(model, block_dims=BLOCK_DIMS)
    )


def test_alphas_by_block_and_blocks_left_out(model):
    dims = ",".join(["0"] * 12 + ["4"] + ["0"] * 12)
    network = lora(model, block_dims=dims, block_alphas=",".join(str(n) for n in range(25)))
    unet = {n: a for n, a in network.adapters().items() if n.startswith("lora_unet_")}
    assert unet and all("mid_block" in name for name in unet)
    assert {float(adapter.alpha) for adapter in unet.values()} == {12.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5,,2", [0.5, 0.0, 2.0, 1.0, 1.0]),
        ("linear", [0, 0.25, 0.5, 0.75, 1]),
        ("reverse_linear+.5", [1.5, 1.25, 1, 0.75, 0.5]),
        ("zeros+2", [2] * 5),
        ("sine", [math.sin(math.pi / 8 * n) for n in range(5)]),
        ("cosine+.5", [0.5 + math.sin(math.pi / 8 * n) for n in range(4, -1, -1)]),
        (None, [1] * 5),
    ],
)
def test_lists_and_curves_of_rates(text, expected):
    assert weights("down_lr_weight", text, 5) == pytest.approx(expected)


def test_rates_by_block_make_groups_and_zero_leaves_a_block_out(model):
    network = lora(
        model,
        down_lr_weight="sine+.5",
        mid_lr_weight="1.5",
        up_lr_weight="0,0,0,2,2,2,2,2,2,2,2,2",
        block_lr_zero_threshold="0.1",
    )
    groups = {
        group["name"]: group for group in network.parameter_groups({"unet": 1e-4, "text_encoder": 1e-5})
    }
    assert groups["unet block 12"]["lr"] == pytest.approx(1.5e-4)
    assert groups["unet block 16"]["lr"] == pytest.approx(2e-4)
    assert groups["text_encoder"]["lr"] == 1e-5
    assert not any(f"unet block {n}" in groups for n in (13, 14, 15))
    assert not any("up_blocks_0" in name for name in network.adapters())
    assert sum(len(group["params"]) for group in groups.values()) == len(list(network.parameters()))


def test_lora_plus_puts_up_weights_in_faster_groups(model):
    network = lora(model, loraplus_lr_ratio="16", loraplus_text_encoder_lr_ratio="4", mid_lr_weight="0.5")
    groups = {
        group["name"]: group for group in network.parameter_groups({"unet": 1e-3, "text_encoder": 1e-3})
    }
    assert groups["unet block 05 plus"]["lr"] == pytest.approx(16e-3)
    assert groups["unet block 12 plus"]["lr"] == pytest.approx(8e-3)
    assert groups["text_encoder plus"]["lr"] == pytest.approx(4e-3)
    assert groups["text_encoder"]["lr"] == pytest.approx(1e-3)
    assert {p.shape[0] for p in groups["text_encoder"]["params"]} == {4}
    frozen = network.parameter_groups({"unet": 1e-3})
    assert not any(group["name"].startswith("text") for group in frozen)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"block_dims": "1,2,3"}, "block_dims has 3 values; SD 1.x and 2.x has 25 blocks"),
        ({"block_dims": "a" + ",1" * 24}, "expected numbers with commas between"),
        ({"block_dims": "1.5" + ",1" * 24}, "expected whole numbers"),
        ({"conv_block_alphas": ",".join("1" * 25)}, "conv_block_alphas needs conv_block_dims"),
        ({"down_lr_weight": ",".join("1" * 13)}, "down_lr_weight has 13 values; there are 12 blocks"),
        ({"down_lr_weight": "circle"}, "expected numbers or a curve"),
        ({"mid_lr_weight": "sine"}, "mid_lr_weight is one value, a curve needs several"),
        ({"block_lr_zero_threshold": "0.1"}, "block_lr_zero_threshold has nothing to act on"),
        ({"unit": "4"}, "networks.lora does not know the network argument unit"),
        ({"loraplus_lr": "4"}, "did you mean loraplus_lr_ratio?"),
        ({"dora_wd": "perhaps"}, "expected True or False"),
        ({"dora_wd": "True", "dropout": "0.1"}, "dora_wd cannot be combined with network_dropout"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(model, arguments, said):
    assert said in refusal(model, **arguments)


def test_switches_that_are_off_are_nothing(model):
    network = lora(model, dora_wd="False", use_rslora="0", block_dims="None", rank_dropout="0")
    assert len(network.weights()) == 3 * 264


def test_blocks_without_a_unet_are_refused(model):
    text = [site for site in model.sites() if site.part == "text_encoder"]
    with pytest.raises(InputError, match="blocks cannot have values of their own"):
        create("networks.lora", text, NetworkSpec(args={"block_dims": BLOCK_DIMS}))


def test_rank_stabilised_alpha_is_what_other_programs_need(model):
    network = lora(model, dim=16, use_rslora="True")
    adapter = network.adapters()["lora_unet_mid_block_attentions_0_proj_in"]
    assert adapter.scale == pytest.approx(1 / 4)
    assert float(adapter.alpha) == pytest.approx(4)


def test_lora_fa_trains_up_only_and_saves_both(model):
    network = lora(model, "networks.lora_fa", dim=8)
    assert all(name.endswith("lora_up.weight") for name, _ in network.named_parameters())
    assert len(network.weights()) == 3 * 264
    wide = network.weights()[
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2.lora_down.weight"
    ]
    assert wide.std() == pytest.approx(math.sqrt(2 / (wide.shape[1] + 8)), rel=0.05)
    assert "loraplus" in refusal(model, "networks.lora_fa", loraplus_lr_ratio="2")


class TestDyLoRA:
    def adapter(self, **spec):
        module = nn.Linear(6, 5, bias=False).requires_grad_(False)
        network = create(
            "networks.dylora",
            [Site("unet_x", "unet", "attention", module)],
            NetworkSpec(dim=8, alpha=4, args={"unit": "2"}, **spec),
        )
        for parameter in network.parameters():
            parameter.data.normal_(generator=torch.Generator().manual_seed(1))
        return module, network

    def test_only_one_block_of_ranks_gets_gradients_and_strength_follows_it(self):
        module, network = self.adapter()
        adapter = network.adapters()["lora_unet_x"]
        x, seen = torch.randn(3, 6), set()
        network.train().attach()
        for step in range(20):
            torch.manual_seed(step)
            network.zero_grad(set_to_none=True)
            out = module(x)
            out.sum().backward()
            ranks = adapter.lora_down.weight.grad.abs().sum(1).nonzero().flatten().tolist()
            assert ranks == [ranks[0], ranks[0] + 1] and ranks[0] % 2 == 0
            assert adapter.lora_up.weight.grad.abs().sum(0).nonzero().flatten().tolist() == ranks
            seen.add(ranks[0])
            factor = 4 / 8 * math.sqrt(8 / (ranks[0] + 2))
            whole = adapter.lora_up.weight @ adapter.lora_down.weight
            torch.testing.assert_close(out, x @ module.weight.T + factor * x @ whole.T)
            torch.manual_seed(step)
            assert torch.equal(module(x), out)
        network.detach()
        assert seen == {0, 2, 4, 6}

    def test_all_ranks_count_when_not_training(self):
        module, network = self.adapter()
        x = torch.randn(3, 6)
        expected = x @ (module.weight + network.adapters()["lora_unet_x"].weight_delta()).T
        network.eval().attach()
        torch.testing.assert_close(module(x), expected)
        network.detach()

    def test_lycoris_leaves_the_ranks_behind_the_block_out(self):
        module = nn.Linear(6, 5, bias=False).requires_grad_(False)
        spec = NetworkSpec(dim=8, alpha=4, args={"algo": "dylora", "block_size": "2"})
        network = create("lycoris.kohya", [Site("unet_x", "unet", "attention", module)], spec)
        adapter, x = network.adapters()["lora_unet_x"], torch.randn(3, 6)
        for parameter in network.parameters():
            parameter.data.normal_()
        network.train().attach()
        for step in range(5):
            torch.manual_seed(step)
            network.zero_grad(set_to_none=True)
            out = module(x)
            out.sum().backward()
            end = int(adapter.lora_down.weight.grad.abs().sum(1).nonzero().max()) + 1
            cut = adapter.lora_up.weight[:, :end] @ adapter.lora_down.weight[:end]
            torch.testing.assert_close(out, x @ module.weight.T + 4 / end * x @ cut.T)
        network.detach()

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            (NetworkSpec(dim=6, args={"unit": "4"}), "multiple of unit"),
            (NetworkSpec(dim=8, conv_dim=4), "conv_dim to be equal to network_dim"),
            (NetworkSpec(dim=8, dropout=0.1), "no use for network_dropout"),
            (NetworkSpec(dim=8, args={"block_dims": "1"}), "does not know the network argument block_dims"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, model, spec, said):
        with pytest.raises(InputError, match=said):
            create("networks.dylora", model.sites(), spec)

    def test_a_lora_file_goes_on_as_dylora(self, model):
        weights = lora(model, dim=4).weights()
        spec = NetworkSpec(args={"unit": "2"})
        network = from_weights(weights, model.sites(), spec, "networks.dylora")
        assert {type(adapter).__name__ for adapter in network.adapters().values()} == {"DyLoRA"}
        assert network.weights().keys() == weights.keys()


class TestOFT:
    def test_targets(self, model):
        def count(**args):
            return len(lora(model, "networks.oft", **args).adapters())

        assert count() == 128
        assert count(enable_all_linear="True") == 192
        assert count(enable_all_linear="True", enable_conv="True") == 278
        assert count(enable_all_linear="False") == 128

    def test_names_and_shapes(self, model):
        weights = lora(model, "networks.oft", dim=4).weights()
        name = "oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        assert weights[f"{name}.oft_blocks"].shape == (4, 8, 8)
        assert weights[f"{name}.alpha"] == 1

    def test_rotated_rows_keep_their_lengths(self, model):
        network = lora(model, "networks.oft")
        for parameter in network.parameters():
            parameter.data.normal_(std=0.1)
        for site in model.sites():
            adapter = network.adapters().get(f"oft_{site.name}")
            if adapter is not None:
                turned = site.module.weight + adapter.weight_delta()
                torch.testing.assert_close(turned.norm(), site.module.weight.norm(), rtol=1e-5, atol=1e-5)

    def test_what_does_not_fit_is_refused(self, model):
        assert "cannot part" in refusal(model, "networks.oft", dim=7)
        assert "no use for conv_dim" in refusal_of(model, NetworkSpec(conv_dim=4))
        text = [site for site in model.sites() if site.part == "text_encoder"]
        with pytest.raises(InputError, match="nothing to train"):
            create("networks.oft", text, NetworkSpec())


def refusal_of(model, spec):
    with pytest.raises(InputError) as caught:
        create("networks.oft", model.sites(), spec)
    return caught.value.text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"algo": "lohar"}, "unknown algo lohar"),
        ({"algo": "locon", "preset": "half"}, "unknown preset half"),
        ({"algo": "locon", "factor": "4"}, "algo=locon does not know the network argument factor"),
        ({"algo": "lokr", "factor": "0"}, "factor cannot be 0"),
        ({"algo": "loha", "constraint": "1"}, "algo=loha does not know the network argument constraint"),
        ({"algo": "boft"}, "cannot part"),
        ({"algo": "dylora", "block_size": "3"}, "multiple of block_size"),
        ({"algo": "lokr", "dropout": "0.1"}, "algo=lokr does not know the network argument dropout"),
        ({"algo": "locon", "dropout": "0.1", "use_tucker": "True"}, "cannot be combined"),
    ],
)
def test_lycoris_refuses_by_name(model, args, said):
    assert said in refusal(model, "lycoris.kohya", **args)


@pytest.mark.parametrize(
    ("preset", "count"),
    [("full", 354), ("full-lin", 302), ("attn-mlp", 264), ("attn-only", 176), ("unet-only", 282),
     ("unet-transformer-only", 192), ("unet-convblock-only", 88), ("ia3", 116)],
)  # fmt: skip
def test_presets_of_lycoris(model, preset, count):
    spec = NetworkSpec(args={"algo": "locon", "preset": preset})
    assert len(create("lycoris.kohya", model.everything(), spec).adapters()) == count


def test_a_file_of_another_kind_cannot_give_lora_its_ranks(model):
    loha = create("lycoris.kohya", model.sites(), NetworkSpec(args={"algo": "loha"})).weights()
    with pytest.raises(
        InputError, match=r"networks\.lora cannot take its ranks from a file of the kind LoHa"
    ):
        from_weights(loha, model.sites(), NetworkSpec(), "networks.lora")
    assert from_weights(loha, model.sites(), NetworkSpec(), "lycoris.kohya").unused == ()


def test_networks_share_no_list_of_targets(model):
    create("lycoris.kohya", model.everything(), NetworkSpec(args={"algo": "locon"}))
    create("networks.oft", model.everything(), NetworkSpec(args={"enable_conv": "True"}))
    assert len(create("networks.lora", model.everything(), NetworkSpec()).adapters()) == 264
