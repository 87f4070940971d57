"""``tools/list_modules.py``: names and shapes of networks on published models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.networks.lycoris import KINDS
from backend.settings import parse_command_line
from backend.settings.rules.network import UNUSED_BY_KIND
from backend.train.listing import list_modules


def listed(arch: str, *words: str):
    return list_modules(arch, parse_command_line([*words], prog="p", complete=False).settings)


@pytest.mark.parametrize(
    ("arch", "file", "words"),
    [
        ("sd15", "full_sd15_lora", ()),
        ("sd15", "full_sd15_lora_conv", ("--network_args", "conv_dim=4", "conv_alpha=1")),
        ("sd21", "full_sd2_lora", ()),
        ("sdxl", "full_sdxl_lora_conv", ("--network_args", "conv_dim=4", "conv_alpha=1")),
        ("sd3-medium", "sd3_medium_lora_base", ()),
        ("sd35-medium", "sd35_medium_lora_base", ()),
        ("sd35-large", "sd35_large_lora_base", ()),
        ("sd3-medium", "sd3_medium_lora_split_qkv", ("--network_args", "split_qkv=True")),
    ],
)
def test_networks_of_the_reference(golden_dir: Path, arch: str, file: str, words: tuple[str, ...]) -> None:
    wanted = json.loads((golden_dir / "keys" / f"{file}.json").read_text())["tensors"]
    modules = listed(arch, "--network_dim", "4", "--network_alpha", "2", *words)
    assert {name: list(shape) for module in modules for name, shape in module.shapes.items()} == wanted


def test_ranks_by_block_and_parts_left_out() -> None:
    dims = "block_dims=" + ",".join(str(number) for number in range(23))
    modules = listed("sdxl", "--network_train_unet_only", "--network_args", dims)
    assert {module.part for module in modules} == {"unet"}
    ranks = {module.name: module.rank for module in modules}
    assert ranks["lora_unet_input_blocks_4_1_proj_in"] == 5
    assert ranks["lora_unet_output_blocks_5_1_proj_out"] == 18
    one = listed("sdxl", "--unet_lr", "0", "--text_encoder_lr1", "0", "--network_dim", "8")
    assert {module.part for module in one} == {"te2"}
    assert len(one) == 32 * 6
    assert one[0].parameters == 8 * (1280 + 1280)


@pytest.mark.parametrize("algo", KINDS)
def test_every_kind_of_lycoris_is_made_out_of_settings(algo: str) -> None:
    """Sizes and dropouts that a kind does not know, which forms give with every kind, do not stop it."""
    sizes = ("conv_dim=16", "conv_alpha=4", "rank_dropout=0.1", "module_dropout=0.1")
    words = ("--network_module", "lycoris.kohya", "--network_dim", "16", "--network_train_unet_only")
    modules = listed("sd15", *words, "--network_dropout", "0.1", "--network_args", f"algo={algo}", *sizes)
    assert len(modules) > 40


def test_what_a_kind_does_not_know_is_told_by_one_table() -> None:
    fields = {"network_dropout": "dropout"}
    for key, kinds in UNUSED_BY_KIND.items():
        without = {algo for algo, (_, _, known) in KINDS.items() if fields.get(key, key) not in known}
        assert set(kinds) == without, key


def test_t5_is_listed_when_it_is_trained() -> None:
    modules = listed("sd3-medium", "--network_dim", "1", "--network_args", "train_t5xxl=True")
    assert sum(module.part == "te3" for module in modules) == 168


def test_the_table(root: Path) -> None:
    words = [sys.executable, "tools/list_modules.py", "--arch", "sd15", "--network_dim", "8"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("264 modules, ")
    assert lines[1].split()[:4] == ["lora_te_text_model_encoder_layers_0_self_attn_k_proj", "te", "text", "8"]
