"""Networks into a checkpoint."""

from __future__ import annotations

import hashlib
import json
from itertools import islice

import pytest
import torch
from safetensors.torch import save_file

from backend import families
from backend.demo.tiny import build_tiny_sd2
from backend.errors import EnvironmentFault, InputError, RunFault
from backend.networks import NetworkSpec, create
from backend.weights import merge_into
from backend.weights.merge_into import MergeInto
from tests.networks.kinds import KINDS
from tests.weights.weights_kit import CONV, Q, left_behind, make_lora, metadata_of, tensors_of

Q_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def model(tiny_sd15):
    torch.set_num_threads(1)
    return families.load(tiny_sd15)


def merge(checkpoint, out, *files, ratios=None, **options):
    ratios = ratios or [1.0] * len(files)
    return merge_into.run(MergeInto(checkpoint, list(files), ratios, out, **options))


def test_equal_to_the_reference_to_the_byte(golden_dir, tmp_path):
    out = tmp_path / "merged.safetensors"
    checkpoint, lora = (
        golden_dir / "in" / "tiny_sd15_fp16.safetensors",
        golden_dir / "in" / "lora_a.safetensors",
    )
    torch.set_num_threads(1)
    report = merge(checkpoint, out, lora, ratios=[0.8], save_precision="fp16")
    wanted = json.loads((golden_dir / "out" / "merge_ckpt_a.json").read_text())["tensors"]
    found = tensors_of(out)
    assert found.keys() == wanted.keys()
    equal = 0
    for name, (shape, dtype, digest, norm) in wanted.items():
        tensor = found[name]
        assert (list(tensor.shape), str(tensor.dtype)) == (shape, dtype)
        assert float(tensor.double().norm()) == pytest.approx(norm, rel=2e-6, abs=1e-9)
        equal += hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16] == digest
    assert equal > len(wanted) * 0.95  # other processors may round the last bit of a sum otherwise
    assert len(report.kept) == 350 and not report.dropped


def test_every_layer_of_an_sdxl_lora_finds_its_place(golden_dir, tmp_path):
    source, lora = (
        golden_dir / "in" / "tiny_sdxl_small.safetensors",
        golden_dir / "in" / "xl_lora.safetensors",
    )
    report = merge(source, tmp_path / "m.safetensors", lora, ratios=[0.5], save_precision="float")
    assert len(report.kept) == 1052 and not report.dropped
    before, after, pairs = tensors_of(source), tensors_of(tmp_path / "m.safetensors"), tensors_of(lora)
    fused = "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_weight"
    for place, letter in enumerate("qkv"):
        name = f"lora_te2_text_model_encoder_layers_3_self_attn_{letter}_proj"
        change = (
            0.5 * 0.5 * pairs[f"{name}.lora_up.weight"].float() @ pairs[f"{name}.lora_down.weight"].float()
        )
        rows = slice(20 * place, 20 * place + 20)
        assert torch.allclose(after[fused][rows], before[fused][rows].float() + change, atol=1e-6)


def randomised(module, spec, model):
    """A network of a kind on some layers, with weights that do something."""
    sites = [*model.adapter_modules(), *model.further_modules()]
    chosen = [s for s in sites if "down_blocks_1_" in s.name or "layers_0_" in s.name]
    network = create(module, chosen, spec)
    draw = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_adds_what_its_adapters_say(kind, model, tiny_sd15, tmp_path):
    network = randomised(*KINDS[kind], model)
    save_file(network.file_weights(), tmp_path / "n.safetensors")
    report = merge(tiny_sd15, tmp_path / "m.safetensors", tmp_path / "n.safetensors", ratios=[0.5])
    assert not report.dropped
    merged = families.load(tmp_path / "m.safetensors")
    modules = {s.name: s.module for s in [*merged.adapter_modules(), *merged.further_modules()]}
    originals = {s.name: s.module for s in [*model.adapter_modules(), *model.further_modules()]}
    assert network.adapters()
    for name, adapter in network.adapters().items():
        name = name.partition("_")[2]
        wanted = originals[name].weight + 0.5 * adapter.weight_delta()
        assert torch.allclose(modules[name].weight, wanted, atol=2e-5), name
        if adapter.bias_delta() is not None:
            assert torch.allclose(
                modules[name].bias, originals[name].bias + 0.5 * adapter.bias_delta(), atol=1e-6
            )


def test_ratios_are_linear_and_files_add_up(tiny_sd15, tmp_path):
    a, b = make_lora(tmp_path / "a.safetensors", seed=1), make_lora(tmp_path / "b.safetensors", 7, seed=2)
    for name, (files, ratios) in {
        "zero": ((a,), [0.0]),
        "half": ((a,), [0.5]),
        "whole": ((a,), [1.0]),
        "minus": ((a,), [-1.0]),
        "both": ((a, b), [1.0, 1.0]),
        "other": ((b,), [1.0]),
    }.items():
        merge(tiny_sd15, tmp_path / f"{name}.safetensors", *files, ratios=ratios)
    read = {p.stem: tensors_of(p)[Q_KEY] for p in tmp_path.glob("*.safetensors") if p.stem not in "ab"}
    base, change = read["zero"], read["whole"] - read["zero"]
    assert float(change.norm()) > 1
    assert torch.equal(base, tensors_of(tiny_sd15)[Q_KEY].float())
    assert torch.allclose(read["half"] - base, change / 2, atol=1e-5)
    assert torch.allclose(read["minus"] - base, -change, atol=1e-5)
    assert torch.allclose(read["both"] - base, change + read["other"] - base, atol=1e-5)


def test_block_weights_reach_their_blocks_only(tiny_sd15, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    weights = [0.0] * 26
    weights[2] = 0.5  # IN01: the first transformer and its resnet
    out = tmp_path / "m.safetensors"
    merge(tiny_sd15, out, lora, lbws=[json.dumps(weights)])
    before, after = tensors_of(tiny_sd15), tensors_of(out)
    changed = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert len(changed) == 3 and Q_KEY in changed
    assert all(name.startswith("model.diffusion_model.input_blocks.1.") for name in changed)


def test_large_tensors_are_merged_in_pieces_without_a_difference(tiny_sd15, tmp_path, monkeypatch):
    lora = make_lora(tmp_path / "a.safetensors")
    merge(tiny_sd15, tmp_path / "whole.safetensors", lora)
    monkeypatch.setattr("backend.weights.streaming.PIECE", 700)
    merge(tiny_sd15, tmp_path / "pieces.safetensors", lora)
    one, other = tensors_of(tmp_path / "whole.safetensors"), tensors_of(tmp_path / "pieces.safetensors")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_metadata_tells_the_recipe_and_keeps_what_loading_needs(tiny_sd15, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    merge(tiny_sd15, tmp_path / "m.safetensors", lora, ratios=[0.25])
    found = metadata_of(tmp_path / "m.safetensors")
    recipe = json.loads(found["atelier.recipe"])
    assert [item["name"] for item in recipe["inputs"]] == [tiny_sd15.name, "a.safetensors"]
    assert recipe["inputs"][1]["ratio"] == 0.25 and len(recipe["inputs"][1]["hash"]) == 64
    assert found["modelspec.title"] == "m" and found["modelspec.merged_from"] == f"{tiny_sd15.stem}, a"
    assert found["atelier.components"] == metadata_of(tiny_sd15)["atelier.components"]
    families.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
def test_pickled_files_can_be_written_and_read(tiny_sd15, tmp_path, suffix):
    lora = make_lora(tmp_path / "a.safetensors")
    first = tmp_path / f"m{suffix}"
    merge(tiny_sd15, first, lora, save_precision="fp16")
    merge(first, tmp_path / "twice.safetensors", lora, ratios=[-1.0])
    before, after = tensors_of(tiny_sd15), tensors_of(tmp_path / "twice.safetensors")
    assert torch.allclose(after[Q_KEY], before[Q_KEY].float(), atol=0.02)


def refused(*args, **options) -> str:
    with pytest.raises(InputError) as caught:
        merge(*args, **options)
    return caught.value.text()


def test_files_that_do_not_belong_together_are_refused_by_name(tiny_sd15, golden_dir, tmp_path):
    out = tmp_path / "m.safetensors"
    text = refused(tiny_sd15, out, golden_dir / "in" / "xl_lora.safetensors")
    assert "SDXL" in text and "SD 1.5" in text
    wide = make_lora(tmp_path / "w.safetensors", shapes={Q: (320, 320)})
    assert "[320, 320]" in refused(tiny_sd15, out, wide) and Q in refused(tiny_sd15, out, wide)
    lora = make_lora(tmp_path / "a.safetensors")
    assert "not a base model" in refused(lora, out, lora)
    assert "not a LoRA" in refused(tiny_sd15, out, tiny_sd15.with_name(tiny_sd15.name))
    assert not out.exists() and not left_behind(tmp_path)


def test_the_output_is_never_an_input_nor_another_file(tiny_sd15, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    before = lora.read_bytes()
    assert "the output is the input" in refused(tiny_sd15, lora, lora, overwrite=True)
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    assert "is there already" in refused(tiny_sd15, taken, lora)
    assert taken.read_bytes() == b"mine" and lora.read_bytes() == before
    merge(tiny_sd15, taken, lora, overwrite=True)
    assert len(tensors_of(taken)) == 1130


def test_values_that_are_not_finite_leave_no_file(tiny_sd15, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    with pytest.raises(RunFault, match="too large for float16"):
        merge(tiny_sd15, tmp_path / "m.safetensors", lora, ratios=[1e6], save_precision="fp16")
    broken = tensors_of(lora)
    broken[f"lora_{CONV}.lora_up.weight"][0] = float("nan")
    save_file(broken, tmp_path / "b.safetensors")
    with pytest.raises(RunFault, match="non-finite"):
        merge(tiny_sd15, tmp_path / "m.safetensors", tmp_path / "b.safetensors")
    assert not (tmp_path / "m.safetensors").exists() and not left_behind(tmp_path)


def test_what_the_model_lacks_is_reported(tiny_sd15, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors", shapes={Q: (32, 32), "unet_nowhere_to_q": (32, 32)})
    report = merge(tiny_sd15, tmp_path / "m.safetensors", lora)
    assert [item.name for item in report.dropped] == ["unet_nowhere_to_q"]
    assert "unet_nowhere_to_q" in report.text()
    assert [part.name for part in islice(report.kept, 1)] == [f"a: {Q}"]


def test_every_layer_of_an_sd2_lora_finds_its_place(tmp_path):
    """Its text encoder holds query, key and value in one tensor."""
    torch.set_num_threads(1)
    path = tmp_path / "sd2.safetensors"
    build_tiny_sd2(path, metadata={"modelspec.prediction_type": "epsilon"})
    before = families.load(path)
    network = create("networks.lora", list(before.adapter_modules()), NetworkSpec(dim=2, conv_dim=2), seed=3)
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    save_file(network.file_weights(), tmp_path / "lora.safetensors", {"ss_base_model_version": "sd_v2"})
    report = merge(
        path, tmp_path / "m.safetensors", tmp_path / "lora.safetensors", ratios=[0.5], save_precision="float"
    )
    assert any("v2-inference.yaml" in note for note in report.notes)
    adapters = network.adapters()
    assert len(report.kept) == len(adapters) and not report.dropped
    after = {site.name: site.module for site in families.load(tmp_path / "m.safetensors").adapter_modules()}
    for site in before.adapter_modules():
        wanted = site.module.weight.float() + 0.5 * adapters[f"lora_{site.name}"].weight_delta().reshape(
            site.module.weight.shape
        )
        assert torch.allclose(after[site.name].weight.float(), wanted, atol=1e-5), site.name


def test_a_device_that_is_not_there_is_named_before_anything_is_written(tiny_sd15, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    with pytest.raises(EnvironmentFault, match="no CUDA device here"):
        merge(tiny_sd15, tmp_path / "m.safetensors", lora, device="cuda:7")
    assert not (tmp_path / "m.safetensors").exists() and not left_behind(tmp_path)
    merge(tiny_sd15, tmp_path / "m.safetensors", lora, device="cpu")
    merge(tiny_sd15, tmp_path / "n.safetensors", lora)
    first, second = tensors_of(tmp_path / "m.safetensors"), tensors_of(tmp_path / "n.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
