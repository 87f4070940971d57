"""Networks into one network, exactly and by SVD."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.networks import NetworkSpec, create
from backend.weights import merge_networks
from backend.weights.blockweights import read_lbws, slot_of
from backend.weights.merge_networks import MergeNetworks
from tests.networks.kinds import KINDS
from tests.weights.weights_kit import (
    CONV,
    PROJ,
    SHAPES,
    TEXT,
    Q,
    distance,
    make_lora,
    metadata_of,
    products,
    tensors_of,
)


def merge(out, *files, ratios=None, **options):
    ratios = ratios or [1.0] * len(files)
    return merge_networks.run(MergeNetworks(list(files), ratios, out, **options))


@pytest.fixture
def two(tmp_path):
    """Two files of other ranks and alphas; the second lacks the 3x3 convolution."""
    small = {name: shape for name, shape in SHAPES.items() if name != CONV}
    return make_lora(tmp_path / "a.safetensors", 4, 2, seed=1), make_lora(
        tmp_path / "b.safetensors", 7, 5, seed=2, shapes=small
    )


def weighted(files, ratios):
    total: dict[str, torch.Tensor] = {}
    for file, ratio in zip(files, ratios, strict=True):
        for name, product in products(file).items():
            total[name] = total.get(name, 0) + ratio * product
    return total


@pytest.mark.parametrize("ratios", [[1.0, 1.0], [0.5, 0.25], [0.6, -0.4]])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_sum_is_exact_and_ranks_add(two, tmp_path, ratios, shuffle):
    out = tmp_path / "ab.safetensors"
    report = merge(out, *two, ratios=ratios, shuffle=shuffle)
    # sd-scripts scales both factors by the ratio, so that 0.5 acts as 0.25, and --concat dilutes by the ranks.
    assert distance(products(out), weighted(two, ratios)) < 1e-5
    assert {part.name: part.rank for part in report.kept} == {Q: 11, TEXT: 11, PROJ: 11, CONV: 4}
    assert report.mean_error() == 0


def test_shuffling_changes_the_order_and_is_the_same_each_time(two, tmp_path):
    for name, shuffle in {"plain": False, "one": True, "two": True}.items():
        merge(tmp_path / f"{name}.safetensors", *two, shuffle=shuffle)
    plain, one, two_ = (tensors_of(tmp_path / f"{n}.safetensors") for n in ("plain", "one", "two"))
    key = f"lora_{Q}.lora_down.weight"
    assert not torch.equal(plain[key], one[key]) and torch.equal(one[key], two_[key])


def test_svd_merge_equals_the_reference(golden_dir, tmp_path):
    torch.set_num_threads(1)
    files = [golden_dir / "in" / f"lora_{letter}.safetensors" for letter in "ac"]
    out = tmp_path / "r.safetensors"
    merge(out, *files, ratios=[0.6, 0.4], new_rank=6, new_conv_rank=2)
    wanted = golden_dir / "out" / "svd_merge_ac_r6c2.safetensors"
    assert distance(products(out), products(wanted)) < 1e-3
    found, theirs = tensors_of(out), tensors_of(wanted)
    assert {k: t.shape for k, t in found.items()} == {k: t.shape for k, t in theirs.items()}
    assert all(float(found[k]) == float(theirs[k]) for k in theirs if k.endswith(".alpha"))
    told, metadata = metadata_of(wanted), metadata_of(out)
    same = ("ss_network_dim", "ss_network_alpha", "ss_base_model_version", "ss_v2", "modelspec.architecture")
    assert {k: float(metadata[k]) if k.endswith("alpha") else metadata[k] for k in same} == {
        k: float(told[k]) if k.endswith("alpha") else told[k] for k in same
    }
    assert metadata["modelspec.merged_from"] == told["modelspec.merged_from"]


def test_a_rank_that_is_large_enough_loses_nothing(two, tmp_path):
    out = tmp_path / "r.safetensors"
    report = merge(out, *two, ratios=[0.6, 0.4], new_rank=32, clamp_quantile=1.0)
    assert distance(products(out), weighted(two, [0.6, 0.4])) < 1e-5
    assert (report.mean_error() or 0) < 1e-4
    assert {part.rank for part in report.kept} == {11, 4}


def test_the_error_that_is_reported_is_the_error_that_is_there(two, tmp_path):
    out = tmp_path / "r.safetensors"
    report = merge(out, *two, new_rank=3, new_conv_rank=2)
    found, wanted = products(out), weighted(two, [1, 1])
    for part in report.kept:
        real = float((found[part.name] - wanted[part.name]).norm() / wanted[part.name].norm())
        assert part.error == pytest.approx(real, rel=1e-3)
        assert part.error > 0.01


@pytest.mark.parametrize(
    "kind", ["loha", "lokr", "lokr whole", "locon tucker", "loha tucker", "lora dora", "oft", "glora", "ia3"]
)
def test_kinds_that_are_no_pairs_are_approximated_or_refused_by_name(kind, tmp_path):
    module, spec = KINDS[kind]
    spec = NetworkSpec(dim=spec.dim, alpha=spec.alpha, conv_dim=spec.conv_dim, args=spec.args)
    if kind == "ia3":
        spec = NetworkSpec(args={"algo": "ia3", "preset": "full"})
    if kind == "loha tucker":
        spec = NetworkSpec(dim=4, alpha=2, conv_dim=2, args={"algo": "loha", "use_cp": "True"})
    network = create(module, _sites(), spec)
    draw = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    file, out = tmp_path / "n.safetensors", tmp_path / "out.safetensors"
    save_file(network.file_weights(), file)
    with pytest.raises(InputError, match="cannot be merged with another network"):
        merge(out, file)
    if kind in ("lora dora", "oft", "glora", "ia3"):
        names = {"lora dora": "DoRA", "oft": "OFT", "glora": "GLoRA", "ia3": "IA3"}
        with pytest.raises(InputError, match=names[kind]):
            merge(out, file, new_rank=4)
        assert not out.exists()
        return
    merge(out, file, ratios=[0.5], new_rank=32, new_conv_rank=32, clamp_quantile=1.0)
    found = products(out)
    for name, adapter in network.adapters().items():
        wanted = 0.5 * adapter.weight_delta().flatten(1)
        assert torch.allclose(found[name.partition("_")[2]], wanted, atol=1e-5)


def _sites():
    from tests.networks.conftest import Site

    linear, conv = torch.nn.Linear(32, 32), torch.nn.Conv2d(32, 32, 3)
    torch.nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))
    return [Site(Q, "unet", "attention", linear), Site(CONV, "unet", "resnet", conv)]


def test_norm_weights_and_differences_are_summed(tmp_path):
    name = "unet_down_blocks_0_attentions_0_norm"
    for letter, value in (("a", 1.0), ("b", 3.0)):
        tensors = {f"lora_{name}.w_norm": torch.full((32,), value), f"lora_{name}.b_norm": torch.ones(32)}
        save_file(tensors, tmp_path / f"{letter}.safetensors")
    merge(
        tmp_path / "m.safetensors", tmp_path / "a.safetensors", tmp_path / "b.safetensors", ratios=[0.5, 0.25]
    )
    found = tensors_of(tmp_path / "m.safetensors")
    assert float(found[f"lora_{name}.w_norm"][0]) == 1.25 and float(found[f"lora_{name}.b_norm"][0]) == 0.75


def test_other_families_and_sizes_are_refused_with_both_names(golden_dir, two, tmp_path):
    out = tmp_path / "m.safetensors"
    with pytest.raises(InputError) as caught:
        merge(out, two[0], golden_dir / "in" / "xl_lora.safetensors")
    assert all(word in caught.value.text() for word in ("a.safetensors", "xl_lora", "SD 1.x", "SDXL"))
    wide = make_lora(tmp_path / "w.safetensors", shapes={Q: (64, 64)})
    with pytest.raises(InputError, match=r"a\.safetensors and w\.safetensors"):
        merge(out, two[0], wide)
    with pytest.raises(InputError, match="2 models, 1 ratios"):
        merge(out, *two, ratios=[1.0])
    assert not out.exists()


def test_block_weights_by_their_lists():
    assert read_lbws([], 2, "sd1") is None
    (full,) = read_lbws([json.dumps([1, *[0.5] * 16])], 1, "sd1") or []
    assert [place for place, value in enumerate(full) if value] == [0, 2, 3, 5, 6, 8, 9, 13, *range(17, 26)]
    (xl,) = read_lbws([json.dumps([1, *[0.5] * 11])], 1, "sdxl") or []
    assert [place for place, value in enumerate(xl) if value] == [0, 5, 6, 8, 9, 13, *range(14, 20)]
    assert len((read_lbws([json.dumps([1] * 20)], 1, "sdxl") or [])[0]) == 26
    for text, family in (
        ("[1,2", "sd1"),
        ("[1]", "sd1"),
        (json.dumps([1] * 12), "sd1"),
        (json.dumps([1] * 17), "sdxl"),
    ):
        with pytest.raises(InputError, match="lbws"):
            read_lbws([text], 1, family)
    with pytest.raises(InputError, match="1 --lbws for 2 models"):
        read_lbws(["[]"], 2, "sd1")


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        (TEXT, 0),
        ("unet_down_blocks_0_attentions_0_proj_in", 2),
        ("unet_down_blocks_0_downsamplers_0_conv", 4),
        ("unet_down_blocks_3_resnets_1_conv1", 12),
        ("unet_mid_block_attentions_0_proj_in", 13),
        ("unet_up_blocks_0_resnets_0_conv1", 14),
        ("unet_up_blocks_0_upsamplers_0_conv", 16),
        ("unet_up_blocks_3_attentions_2_proj_in", 25),
        ("unet_input_blocks_4_1_proj_in", 5),
        ("unet_middle_block_1_proj_in", 13),
        ("unet_output_blocks_5_1_proj_in", 19),
    ],
)
def test_modules_fall_into_their_slots(name, slot):
    assert slot_of(name) == slot
