"""LoRA on SD 3's transformer: ranks of single layers, blocks, split attention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from backend import networks
from backend.errors import InputError
from backend.networks.base import NetworkSpec

ENDS = ("context_embedder", "t_embedder_mlp_0", "t_embedder_mlp_2", "x_embedder_proj", "y_embedder_mlp_0",
        "final_layer_adaLN_modulation_1", "final_layer_linear")  # fmt: skip
LAYERS = ("attn_qkv", "attn_proj", "mlp_fc1", "mlp_fc2", "adaLN_modulation_1")


@dataclass(frozen=True)
class Site:
    name: str
    part: str
    container: str
    module: nn.Module


def linear(name: str, part: str = "unet", container: str = "attention") -> Site:
    return Site(name, part, container, nn.Linear(12, 36 if name.endswith("_qkv") else 12))


def sites(blocks: int = 3) -> list[Site]:
    found = [linear("te1_text_model_encoder_layers_0_mlp_fc1", "te1", "text")]
    for block in range(blocks):
        for side in ("context_block", "x_block"):
            layers = (*LAYERS, "attn2_qkv") if side == "x_block" else LAYERS
            found += [linear(f"unet_joint_blocks_{block}_{side}_{layer}") for layer in layers]
    ends = [Site(f"unet_{name}", "unet", "edge", nn.Linear(12, 12)) for name in ENDS]
    return found + ends


def ranks(args: dict[str, str], modules: Iterable[Site] | None = None, dim: int = 4) -> dict[str, int]:
    network = networks.create("networks.lora", modules or sites(), NetworkSpec(dim=dim, alpha=1, args=args))
    return {
        key.removesuffix(".lora_down.weight").removeprefix("lora_"): tensor.shape[0]
        for key, tensor in network.weights().items() if key.endswith("down.weight")
    }  # fmt: skip


def test_kinds_of_layers_have_ranks_of_their_own() -> None:
    args = {
        "context_attn_dim": "2",
        "context_mlp_dim": "3",
        "context_mod_dim": "0",
        "x_attn_dim": "5",
        "x_mod_dim": "7",
    }
    found = ranks(args)
    expected = {"context_block_attn_qkv": 2, "context_block_mlp_fc1": 3, "x_block_attn_proj": 5, "x_block_attn2_qkv": 5,
                "x_block_mlp_fc2": 4, "x_block_adaLN_modulation_1": 7}  # fmt: skip
    assert {name: found[f"unet_joint_blocks_1_{name}"] for name in expected} == expected
    assert "unet_joint_blocks_1_context_block_adaLN_modulation_1" not in found
    assert found["te1_text_model_encoder_layers_0_mlp_fc1"] == 4  # text encoders keep the network's rank
    assert not [name for name in found if "embedder" in name]


def test_the_ends_have_six_ranks() -> None:
    found = ranks({"emb_dims": "[2,3,4,0,6,7]"})
    assert [found.get(f"unet_{name}") for name in ENDS] == [2, 3, 3, 4, None, 6, 7]
    assert found["unet_joint_blocks_0_x_block_mlp_fc1"] == 4
    assert [name for name in ranks({"emb_dims": "0,0,0,0,0,1"}) if "final_layer" in name] == [
        "unet_final_layer_linear"
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("0,2", {0, 2}), ("1-2", {1, 2}), ("all", {0, 1, 2}), ("none", set[int]())]
)
def test_blocks_are_chosen(text: str, expected: set[int]) -> None:
    found = ranks({"train_block_indices": text})
    assert {int(name.split("_")[3]) for name in found if "joint" in name} == expected
    assert "te1_text_model_encoder_layers_0_mlp_fc1" in found


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"emb_dims": "1,2,3"}, "six whole numbers"),
        ({"train_block_indices": "0-9"}, "there are 3"),
        ({"train_block_indices": "x"}, "expected blocks"),
        ({"x_attn_dim": "-1"}, "from 0"),
        ({"split_qkv": "True", "dora_wd": "True"}, "dora_wd cannot be combined with split_qkv"),
    ],
)
def test_values_that_make_no_sense(args: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ranks(args)


def test_other_models_have_no_such_layers() -> None:
    with pytest.raises(InputError, match="x_attn_dim: this model has no layers of that sort"):
        ranks({"x_attn_dim": "2"}, [linear("unet_mid_block_attentions_0_proj_in")])


def test_split_attention_keeps_three_pairs_apart_and_its_strength() -> None:
    site = linear("unet_joint_blocks_0_x_block_attn_qkv")
    network = networks.create(
        "networks.lora", [site], NetworkSpec(dim=2, alpha=1, args={"split_qkv": "True"}), seed=3
    )
    assert isinstance(network, nn.Module)
    network.attach()
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(3):
        (site.module(x) - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = network.file_weights()
    down, up = (
        weights["lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"],
        weights["lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight"],
    )
    assert down.shape == (6, 12) and up.shape == (36, 6)
    for third in range(3):  # each third of the outputs has ranks of its own, and uses them
        rows = up[third * 12 : third * 12 + 12].clone()
        own = slice(third * 2, third * 2 + 2)
        assert rows[:, own].abs().max() > 0
        rows[:, own] = 0
        assert not rows.any()
    # What was trained: alpha / rank of each pair. A loader that knows nothing of splitting adds the same.
    with torch.no_grad():
        trained = site.module(x)
        by_hand = torch.cat(
            [
                0.5 * (x @ down[i * 2 : i * 2 + 2].T @ up[i * 12 : i * 12 + 12, i * 2 : i * 2 + 2].T)
                for i in range(3)
            ],
            dim=1,
        )
        network.detach()
        torch.testing.assert_close(trained, site.module(x) + by_hand)
        plain = networks.from_weights(weights, [site])
        plain.attach()
        torch.testing.assert_close(site.module(x), trained)
        plain.detach()


def test_going_on_with_split_attention() -> None:
    site = linear("unet_joint_blocks_0_x_block_attn_qkv")
    spec = NetworkSpec(dim=2, alpha=1, args={"split_qkv": "True"})
    first = networks.create("networks.lora", [site], spec, seed=3)
    assert networks.create("networks.lora", [site], spec, seed=4).load_weights(first.weights()) == []
    whole = networks.create("networks.lora", [site], NetworkSpec(dim=6, alpha=1), seed=5).weights()
    whole = {key: tensor + 1 if "up" in key else tensor for key, tensor in whole.items()}
    with pytest.raises(InputError, match="trained without split_qkv"):
        first.load_weights(whole)
