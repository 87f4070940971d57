"""Looking into files, comparing them, and other metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.networks import create
from backend.settings import Settings
from backend.settings.imports.metadata import settings_of
from backend.settings.tomlfile import read_toml
from backend.weights.compare import compare
from backend.weights.editing import EditMetadata, edit_metadata
from backend.weights.inspect import inspect, tensor_facts
from backend.weights.merge_networks import MergeNetworks
from backend.weights.merge_networks import run as merge_networks
from backend.weights.metadata import content_hashes
from tests.networks.kinds import KINDS
from tests.weights.test_merge_networks import _sites
from tests.weights.weights_kit import CONV, TEXT, Q, make_lora, metadata_of, products, tensors_of

TOLD = json.loads((Path(__file__).parents[1] / "golden" / "tiny_lora_metadata.json").read_text())


def test_every_layer_is_described(tmp_path):
    path = make_lora(tmp_path / "a.safetensors", 4, 2, metadata=TOLD)
    found = inspect(path)
    assert (found.kind, found.family, found.title) == ("lora", "sd1", "LoRA for SD 1.5")
    layers = {layer.name: layer for layer in found.layers}
    changes = products(path)
    assert layers.keys() == changes.keys()
    for name, layer in layers.items():
        assert (layer.kind, layer.rank, layer.alpha, layer.dtype) == ("LoRA", 4, 2.0, "float32")
        assert layer.norm == pytest.approx(float(changes[name].norm()), rel=1e-4)
    assert layers[CONV].shape == [32, 32, 3, 3]
    assert (layers[TEXT].block, layers[Q].block) == ("BASE", "IN01")
    assert list(found.blocks) == ["BASE", "IN01"] and found.blocks["IN01"]["modules"] == 3
    inner = [layers[name].norm or 0 for name in layers if name != TEXT]
    assert found.blocks["IN01"]["norm"] == pytest.approx(math.hypot(*inner))
    assert found.tags[0] == ("sks shape", 12) and len(found.sha256) == 64
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", ["loha", "lokr", "locon tucker", "oft", "lora dora"])
def test_other_kinds_are_described_as_far_as_can_be(kind, tmp_path):
    network = create(KINDS[kind][0], _sites(), KINDS[kind][1])
    for parameter in network.parameters():
        parameter.data.add_(0.1)
    save_file(network.file_weights(), tmp_path / "n.safetensors")
    layers = {layer.name: layer for layer in inspect(tmp_path / "n.safetensors").layers}
    for name, adapter in network.adapters().items():
        layer = layers[name.partition("_")[2]]
        if kind in ("oft", "lora dora"):
            assert layer.norm is None and layer.kind == {"oft": "OFT", "lora dora": "DoRA"}[kind]
        else:
            assert layer.norm == pytest.approx(float(adapter.weight_delta().norm()), rel=1e-3)


def test_settings_are_read_back_and_can_be_trained_with_again(tmp_path):
    found = settings_of(TOLD)
    flat = found.settings.flat()
    assert flat["learning_rate"] == 0.001 and flat["network_dim"] == 4 and flat["network_alpha"] == 2
    assert flat["max_train_steps"] == 3 and flat["seed"] == 42 and flat["optimizer_type"] == "AdamW"
    assert flat["resolution"] == "128,128" and flat["shuffle_caption"] and flat["keep_tokens"] == 1
    assert any("2_sks shape" in note for note in found.notes)
    (tmp_path / "again.toml").write_text(found.toml("again"), encoding="utf-8")
    assert read_toml(tmp_path / "again.toml") == found.settings


def test_settings_that_cannot_be_taken_are_noted():
    found = settings_of({"ss_learning_rate": "fast", "ss_network_dim": "8", "ss_network_args": "{bad",
                         "ss_optimizer": "my.own.Optim8(weight_decay=0.1,betas=(0.9, 0.99))"})  # fmt: skip
    assert found.settings.flat()["network_dim"] == 8
    assert found.settings.flat()["learning_rate"] == Settings().flat()["learning_rate"]
    assert any("learning_rate" in note for note in found.notes)


def test_two_files_are_compared_by_what_they_do(tmp_path):
    a, b = (
        make_lora(tmp_path / "a.safetensors", 4, 2, seed=1),
        make_lora(tmp_path / "b.safetensors", 6, 3, seed=2),
    )
    same = compare(a, a)
    assert same.cosine == pytest.approx(1) and same.distance == pytest.approx(0, abs=1e-6)
    found = compare(a, b)
    one, two = products(a), products(b)
    flat = [torch.cat([side[name].flatten() for name in one]) for side in (one, two)]
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(*flat, dim=0)), abs=1e-5)
    assert found.distance == pytest.approx(float((flat[0] - flat[1]).norm() / flat[0].norm()), rel=1e-4)
    other = make_lora(tmp_path / "o.safetensors", shapes={"unet_mid_block_attentions_0_proj_in": (8, 8)})
    with pytest.raises(InputError, match="in common"):
        compare(a, other)


def test_metadata_is_changed_in_a_copy_only(tmp_path):
    source = make_lora(tmp_path / "a.safetensors", metadata=TOLD)
    before = source.read_bytes()
    edit_metadata(
        EditMetadata(source, tmp_path / "b.safetensors", {"modelspec.author": "me"}, ["ss_training_comment"])
    )
    found = metadata_of(tmp_path / "b.safetensors")
    assert found["modelspec.author"] == "me" and "ss_training_comment" not in found
    one, two = tensors_of(source), tensors_of(tmp_path / "b.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    hashes = {key: found[key] for key in ("sshs_model_hash", "sshs_legacy_hash")}
    assert hashes == content_hashes(two, found)
    edit_metadata(EditMetadata(source, tmp_path / "c.safetensors", strip=True))
    clean = metadata_of(tmp_path / "c.safetensors")
    assert "ss_tag_frequency" not in clean and "ss_sd_model_name" not in clean
    assert clean["ss_network_dim"] == "4"
    assert source.read_bytes() == before
    with pytest.raises(InputError, match="no metadata nothing_such"):
        edit_metadata(EditMetadata(source, tmp_path / "d.safetensors", remove=["nothing_such"]))


def test_values_that_are_not_finite_are_counted(tmp_path):
    tensors = tensors_of(make_lora(tmp_path / "a.safetensors"))
    tensors[f"lora_{Q}.lora_up.weight"][0, 0] = float("inf")
    save_file(tensors, tmp_path / "b.safetensors")
    assert {fact.name: fact.broken for fact in tensor_facts(tmp_path / "b.safetensors") if fact.broken} == {
        f"lora_{Q}.lora_up.weight": 1
    }


def test_what_a_merge_writes_is_told_again(tmp_path):
    a, b = make_lora(tmp_path / "a.safetensors", 4), make_lora(tmp_path / "b.safetensors", 7)
    merge_networks(MergeNetworks([a, b], [0.5, 0.5], tmp_path / "m.safetensors"))
    recipe = json.loads(inspect(tmp_path / "m.safetensors").metadata["atelier.recipe"])
    assert [item["ratio"] for item in recipe["inputs"]] == [0.5, 0.5]
