"""Other ranks, a DyLoRA's ranks, and what extraction gives."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import EnvironmentFault, InputError
from backend.weights import dylora, extract, merge_into, resize
from backend.weights.dylora import Split
from backend.weights.extract import Extract
from backend.weights.merge_into import MergeInto
from backend.weights.resize import Resize, rank_by
from backend.weights.svd import of_matrix, of_product, quantile_of
from tests.weights.weights_kit import (
    CONV,
    PROJ,
    TEXT,
    Q,
    distance,
    left_behind,
    make_lora,
    metadata_of,
    products,
    tensors_of,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def pointwise(name):
    return name.endswith(("_proj_in", "_proj_out", "_conv_shortcut"))


def test_fixed_ranks_equal_the_reference(golden_dir, tmp_path):
    source, out = golden_dir / "in" / "lora_a.safetensors", tmp_path / "r.safetensors"
    resize.run(Resize(source, out, 4, 2))
    found, wanted = products(out), products(golden_dir / "out" / "resize_a_fixed4c2.safetensors")
    assert found.keys() == wanted.keys()
    # sd-scripts gives 1x1 convolutions the rank of 3x3 ones; here they have new_rank.
    plain = [name for name in wanted if not pointwise(name)]
    assert len(plain) > 300
    assert distance({n: found[n] for n in plain}, {n: wanted[n] for n in plain}) < 1e-3
    ours, theirs = tensors_of(out), tensors_of(golden_dir / "out" / "resize_a_fixed4c2.safetensors")
    for name in plain:
        key = f"lora_{name}.lora_down.weight"
        assert ours[key].shape == theirs[key].shape and ours[key].dtype == theirs[key].dtype
    told = metadata_of(golden_dir / "out" / "resize_a_fixed4c2.safetensors")
    mine = metadata_of(out)
    own = {key for key in told if key.startswith("ss_")}
    assert {key: mine[key] for key in own} == {key: told[key] for key in own}


def test_dynamic_ranks_are_what_the_rule_gives(golden_dir, tmp_path):
    out = tmp_path / "r.safetensors"
    resize.run(Resize(golden_dir / "in" / "lora_a.safetensors", out, 8, 4, "sv_ratio", 10.0))
    ours, theirs = tensors_of(out), tensors_of(golden_dir / "out" / "resize_a_svratio10.safetensors")
    seen = 0
    for key, tensor in theirs.items():
        if key.endswith("lora_down.weight") and not pointwise(key.partition(".")[0]):
            cap = 4 if tensor.dim() == 4 else 8
            assert tensor.shape[0] == min(ours[key].shape[0] + 1, cap)  # sd-scripts keeps one more
            seen += 1
    assert seen > 300
    assert metadata_of(out)["ss_network_dim"] == "Dynamic"


@pytest.mark.parametrize(
    ("method", "parameter", "cap", "rank"),
    [
        (None, None, 3, 3),
        ("sv_ratio", 2.0, 8, 1),
        ("sv_ratio", 2.1, 8, 2),
        ("sv_ratio", 100.0, 8, 4),
        ("sv_ratio", 100.0, 3, 3),
        ("sv_cumulative", 0.5, 8, 1),
        ("sv_cumulative", 0.54, 8, 2),
        ("sv_cumulative", 1.0, 8, 4),
        ("sv_fro", 0.8, 8, 1),
        ("sv_fro", 0.9, 8, 2),
        ("sv_fro", 0.0, 8, 1),
    ],
)
def test_ranks_by_singular_values(method, parameter, cap, rank):
    # 8, 4, 2, 1: sums 15, squares 85
    assert rank_by(torch.tensor([8.0, 4.0, 2.0, 1.0]), method, parameter, cap) == rank
    assert rank_by(torch.zeros(4), "sv_ratio", 2.0, 8) == 1


def test_resizing_keeps_the_strength_and_tells_what_is_lost(tmp_path):
    source, out = make_lora(tmp_path / "a.safetensors", 8, 3), tmp_path / "r.safetensors"
    report = resize.run(Resize(source, out, 5))
    found, wanted = products(out), products(source)
    for part in report.kept:
        real = float((found[part.name] - wanted[part.name]).norm() / wanted[part.name].norm())
        assert part.error == pytest.approx(real, rel=1e-3) and 0 < real < 0.2
    alpha = tensors_of(out)[f"lora_{Q}.alpha"]
    assert float(alpha) == pytest.approx(3 * 5 / 8)
    assert "fro retained" in report.text(verbose=True) and Q in report.text(verbose=True)


def test_ranks_out_of_range_are_refused_or_clamped(tmp_path):
    source, out = make_lora(tmp_path / "a.safetensors", 4), tmp_path / "r.safetensors"
    for options in ({"new_rank": 0}, {"new_conv_rank": -1}, {"dynamic_method": "sv_fro"},
                    {"dynamic_method": "sv_fro", "dynamic_param": 1.5},
                    {"dynamic_method": "sv_ratio", "dynamic_param": 1.0}):  # fmt: skip
        with pytest.raises(InputError):
            resize.run(Resize(source, out, **options))
    assert not out.exists()
    report = resize.run(Resize(source, out, 64))
    assert {part.rank for part in report.kept} == {4} and "keep it" in report.notes[0]
    assert distance(products(out), products(source)) < 1e-5
    resize.run(Resize(source, out, 1, overwrite=True))
    assert tensors_of(out)[f"lora_{CONV}.lora_up.weight"].shape == (32, 1, 1, 1)


def test_kinds_without_a_rank_are_refused_by_name(tmp_path):
    tensors = tensors_of(make_lora(tmp_path / "a.safetensors"))
    tensors[f"lora_{Q}.dora_scale"] = torch.ones(32, 1)
    save_file(tensors, tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="DoRA"):
        resize.run(Resize(tmp_path / "d.safetensors", tmp_path / "r.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EnvironmentFault, match="CUDA"):
        resize.run(Resize(make_lora(tmp_path / "a.safetensors"), tmp_path / "r.safetensors", device="cuda"))


def test_a_dylora_is_split_as_by_the_reference(golden_dir, tmp_path):
    report = dylora.run(Split(golden_dir / "in" / "lora_a.safetensors", tmp_path / "s.safetensors", 4))
    assert [part.name for part in report.kept] == ["s-0004.safetensors"]
    found, wanted = (
        tensors_of(tmp_path / "s-0004.safetensors"),
        tensors_of(golden_dir / "out" / "dylora_split_a-0004.safetensors"),
    )
    assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)
    told, mine = (
        metadata_of(golden_dir / "out" / "dylora_split_a-0004.safetensors"),
        metadata_of(tmp_path / "s-0004.safetensors"),
    )
    assert {k: mine[k] for k in told} == told


@pytest.mark.parametrize("unit", [0, 4, 9])
def test_a_unit_that_gives_no_file_is_refused(tmp_path, unit):
    with pytest.raises(InputError, match="unit"):
        dylora.run(Split(make_lora(tmp_path / "a.safetensors", 4), tmp_path / "s.safetensors", unit))


@pytest.fixture(scope="module")
def tuned(tiny_sd15, tmp_path_factory):
    """The narrow checkpoint with a LoRA merged in."""
    folder = tmp_path_factory.mktemp("tuned")
    lora, out = make_lora(folder / "a.safetensors", 3, 3, seed=5), folder / "tuned.safetensors"
    merge_into.run(MergeInto(tiny_sd15, [lora], [1.0], out))
    return lora, out


def test_extraction_equals_the_reference(golden_dir, tmp_path):
    source, tuned = golden_dir / "in" / "tiny_sd15_fp16.safetensors", tmp_path / "t.safetensors"
    merge_into.run(
        MergeInto(source, [golden_dir / "in" / "lora_a.safetensors"], [0.8], tuned, save_precision="fp16")
    )
    extract.run(Extract(source, tuned, tmp_path / "e.safetensors", 4, 2))
    wanted = golden_dir / "out" / "extract_d4c2.safetensors"
    assert distance(products(tmp_path / "e.safetensors"), products(wanted)) < 1e-3
    found, theirs = tensors_of(tmp_path / "e.safetensors"), tensors_of(wanted)
    assert {k: (t.shape, t.dtype) for k, t in found.items()} == {
        k: (t.shape, t.dtype) for k, t in theirs.items()
    }
    told, mine = metadata_of(wanted), metadata_of(tmp_path / "e.safetensors")
    own = {key for key in told if key.startswith("ss_")}
    assert {key: mine[key] for key in own} == {key: told[key] for key in own}


def test_what_was_merged_in_comes_out_again(tiny_sd15, tuned, tmp_path):
    lora, model = tuned
    report = extract.run(Extract(tiny_sd15, model, tmp_path / "e.safetensors", 3, 3, clamp_quantile=1))
    assert distance(products(tmp_path / "e.safetensors"), products(lora)) < 1e-3
    assert {part.name for part in report.kept} == {Q, TEXT, PROJ, CONV}
    assert (report.mean_error() or 1) < 1e-3
    low = extract.run(Extract(tiny_sd15, model, tmp_path / "low.safetensors", 1))
    assert {part.name for part in low.kept} == {Q, TEXT, PROJ}
    assert (low.mean_error() or 0) > 0.1
    assert any("in_layers.2" in item.name for item in low.dropped)


def test_text_encoders_that_hardly_differ_are_left_out(tiny_sd15, tuned, tmp_path):
    report = extract.run(Extract(tiny_sd15, tuned[1], tmp_path / "e.safetensors", 2, min_diff=100.0))
    assert TEXT not in {part.name for part in report.kept} and "text encoders" in report.notes[0]


def test_equal_models_give_no_file(tiny_sd15, golden_dir, tmp_path):
    out = tmp_path / "e.safetensors"
    with pytest.raises(InputError, match="the same; nothing to extract"):
        extract.run(Extract(tiny_sd15, tiny_sd15, out))
    with pytest.raises(InputError, match=r"SD 1\.5.*SDXL"):
        extract.run(Extract(tiny_sd15, golden_dir / "in" / "tiny_sdxl_small.safetensors", out))
    assert not out.exists() and not left_behind(tmp_path)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rank", [4, 32])
def test_the_fast_decomposition_is_within_a_percent_of_the_best(decay, rank):
    draw = torch.Generator().manual_seed(3)
    left, _ = torch.linalg.qr(torch.randn(300, 260, generator=draw))
    right, _ = torch.linalg.qr(torch.randn(420, 260, generator=draw))
    values = (torch.arange(260) + 1.0) ** -decay
    matrix = (left * values) @ right.T
    best = float(values[rank:].square().sum().sqrt() / values.square().sum().sqrt())
    fast, exact = of_matrix(matrix, rank), of_matrix(matrix, rank, exact=True)
    for found, slack in ((fast, 1.01), (exact, 1.0001)):
        product = (found.u[:, :rank] * found.s[:rank]) @ found.vh[:rank]
        real = float((matrix - product).norm() / matrix.norm())
        assert real <= best * slack
        assert found.error(rank) == pytest.approx(real, rel=1e-2)


def test_a_product_is_decomposed_without_being_built():
    draw = torch.Generator().manual_seed(3)
    up, down = torch.randn(200, 6, generator=draw), torch.randn(6, 300, generator=draw)
    found = of_product(up, down)
    exact = torch.linalg.svdvals(up @ down)[:6]
    assert found.u.shape == (200, 6) and torch.allclose(found.s, exact, rtol=1e-4)
    assert torch.allclose((found.u * found.s) @ found.vh, up @ down, atol=1e-3)


def test_quantiles_are_torchs():
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.123, 0.99, 1.0):
        assert math.isclose(
            quantile_of(values, share), float(torch.quantile(values, share)), rel_tol=1e-6, abs_tol=1e-7
        )


@pytest.mark.parametrize(
    ("mode", "value", "rank"),
    [
        ("threshold", 3.0, 2),
        ("threshold", 100.0, 1),
        ("ratio", 0.2, 3),
        ("quantile", 0.9, 2),
        ("quantile", 0.5, 1),
    ],
)
def test_ranks_by_lycoris_rules(tiny_sd15, tmp_path, mode, value, rank):
    # One layer changes by a matrix with the singular values 8, 4, 2.
    tensors = tensors_of(tiny_sd15)
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    base = tensors[key].float()
    left, _ = torch.linalg.qr(torch.randn(32, 3, generator=torch.Generator().manual_seed(0)))
    right, _ = torch.linalg.qr(torch.randn(32, 3, generator=torch.Generator().manual_seed(1)))
    tensors[key] = base + (left * torch.tensor([8.0, 4.0, 2.0])) @ right.T
    save_file(tensors, tmp_path / "t.safetensors", metadata_of(tiny_sd15))
    job = Extract(tiny_sd15, tmp_path / "t.safetensors", tmp_path / "e.safetensors", mode=mode, linear_value=value,
                  clamp_quantile=1)  # fmt: skip
    report = extract.run(job)
    assert [(part.name, part.rank) for part in report.kept] == [(Q, rank)]
    lost = math.sqrt(sum(value**2 for value in (8, 4, 2)[rank:]) / 84)
    assert report.mean_error() == pytest.approx(lost, abs=1e-3)
