"""What result files say about themselves, against a file that sd-scripts wrote."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from backend import __version__
from backend.data.types import CaptionRules, Dataset, DatasetPlan, Geometry, Picture, Subset
from backend.errors import InputError, RunFault
from backend.settings import Settings
from backend.train.modelspec import thumbnail
from backend.train.provenance import (
    TrainingFacts,
    content_hashes,
    minimum_metadata,
    modelspec,
    network_metadata,
    save_network,
)

OURS = {"atelier.version"}
"""Keys that sd-scripts does not write."""
ITS_OWN = {"modelspec.implementation_version", "ss_sd_scripts_commit_hash"}
"""Keys that name the program that trained."""
FROM_THE_FILE = {"sshs_model_hash", "sshs_legacy_hash"}


@pytest.fixture
def reference(root) -> dict[str, str]:
    """Metadata of a LoRA trained by sd-scripts on 12 pictures with a dataset file."""
    return json.loads((root / "tests/golden/tiny_lora_metadata.json").read_text())


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "tiny_sd15.safetensors"
    path.write_bytes(bytes(range(256)) * 5000)
    return path


@pytest.fixture
def facts(base) -> TrainingFacts:
    return TrainingFacts(
        session_id=1925724140,
        started_at=1795243129.567006,
        family="sd1",
        base_model=base,
        seed=42,
        optimizer="torch.optim.adamw.AdamW",
        max_train_steps=3,
        num_epochs=1,
        batches_per_epoch=24,
        steps=3,
        epoch=1,
        finished_at=1795243131.1226532,
    )


def settings(**more) -> Settings:
    return Settings.from_flat(
        {
            "pretrained_model_name_or_path": "/home/someone/models/tiny_sd15.safetensors",
            "dataset_config": "/home/someone/data.toml",
            "output_dir": "/home/someone/out",
            "output_name": "lora",
            "network_dim": 4,
            "network_alpha": 2,
            "learning_rate": 1e-3,
            "max_train_steps": 3,
            "seed": 42,
            **more,
        }
    )


def picture(subset: Subset, name: str, caption: str, size=(128, 128), bucket=(128, 128)) -> Picture:
    geometry = Geometry(size, bucket, bucket, (0, 0))
    path = subset.image_dir / name
    return Picture(f"0/{name}", path, subset, caption, None, geometry, subset.num_repeats)


def dataset(*pictures: Picture, **more) -> Dataset:
    given = {
        "resolution": (128, 128),
        "batch_size": 1,
        "enable_bucket": True,
        "min_bucket_reso": 64,
        "max_bucket_reso": 256,
        "bucket_reso_steps": 64,
        "bucket_no_upscale": False,
        "subsets": tuple(dict.fromkeys(p.subset for p in pictures)),
    }
    return Dataset(pictures=pictures, **{**given, **more})


@pytest.fixture
def plan(reference) -> DatasetPlan:
    """12 pictures with the reference's tags, buckets and repeats."""
    rules = CaptionRules(shuffle_caption=True, keep_tokens=1)
    subset = Subset(Path("/home/someone/train/2_sks shape"), num_repeats=2, captions=rules)
    tags = json.loads(reference["ss_tag_frequency"])["2_sks shape"]
    captions = [", ".join(tag for tag, count in tags.items() if count > i) for i in range(12)]
    shapes = [((100, 300), (64, 192))] * 3 + [((150, 100), (128, 128))] * 9
    pictures = [
        picture(subset, f"{i}.png", caption.title(), *shape)
        for i, (caption, shape) in enumerate(zip(captions, shapes, strict=True))
    ]
    return DatasetPlan((dataset(*pictures),))


@pytest.fixture
def metadata(plan, facts):
    found = network_metadata(settings(), plan, facts)
    return {**found, **content_hashes({"a": torch.ones(3)}, found)}


def test_same_keys_as_sd_scripts(metadata, reference):
    assert metadata.keys() - reference.keys() == OURS
    assert reference.keys() - metadata.keys() == set()


def test_same_values_as_sd_scripts_for_the_same_run(metadata, reference):
    differing = FROM_THE_FILE | ITS_OWN | {"ss_sd_model_hash", "ss_new_sd_model_hash"}
    composite = {"ss_datasets", "ss_tag_frequency", "ss_dataset_dirs", "modelspec.date"}
    plain = reference.keys() - differing - composite
    assert {key: metadata[key] for key in plain} == {key: reference[key] for key in plain}


def test_datasets_are_described_as_sd_scripts_does(metadata, reference):
    for key in ("ss_tag_frequency", "ss_dataset_dirs"):
        assert json.loads(metadata[key]) == json.loads(reference[key])
    ours, theirs = json.loads(metadata["ss_datasets"]), json.loads(reference["ss_datasets"])
    assert ours[0]["bucket_info"].pop("mean_img_ar_error") == pytest.approx(9 / 12 * 0.5)
    theirs[0]["bucket_info"].pop("mean_img_ar_error")
    assert ours == theirs


def test_formats(metadata, reference, base):
    shape = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
    assert shape.fullmatch(metadata["modelspec.date"])
    assert shape.fullmatch(reference["modelspec.date"])
    finished = datetime.fromtimestamp(1795243131.1226532).isoformat(timespec="seconds")
    assert metadata["modelspec.date"] == finished
    assert metadata["ss_new_sd_model_hash"] == hashlib.sha256(base.read_bytes()).hexdigest()
    window = base.read_bytes()[0x100000:0x110000]
    assert metadata["ss_sd_model_hash"] == hashlib.sha256(window).hexdigest()[:8]
    assert metadata["modelspec.implementation_version"] == f"atelier/{__version__}"
    assert all(isinstance(value, str) for value in metadata.values())


def test_no_path_of_this_machine_is_told(metadata, tmp_path):
    text = json.dumps(metadata)
    assert "/home/" not in text
    assert str(tmp_path) not in text


def test_folders_alone_give_single_keys(facts):
    subset = Subset(Path("/d/3_cat"), num_repeats=3, class_tokens="cat")
    other = Subset(Path("/d/1_reg"), is_reg=True)
    pictures = [
        picture(subset, "a.png", "a cat, Red"),
        picture(subset, "b.png", "a cat"),
        picture(other, "c.png", "x"),
    ]
    plan = DatasetPlan((dataset(*pictures),))
    chosen = settings(
        dataset_config=None,
        train_data_dir="/d",
        reg_data_dir="/r",
        train_batch_size=1,
        gradient_accumulation_steps=2,
    )
    found = network_metadata(chosen, plan, replace(facts, processes=3))
    assert "ss_datasets" not in found
    assert found["ss_resolution"] == "(128, 128)"
    assert found["ss_batch_size_per_device"] == "1"
    assert found["ss_total_batch_size"] == "6"
    assert found["ss_enable_bucket"] == "True"
    assert found["ss_min_bucket_reso"] == "64"
    assert json.loads(found["ss_dataset_dirs"]) == {"3_cat": {"n_repeats": 3, "img_count": 2}}
    assert json.loads(found["ss_reg_dataset_dirs"]) == {"1_reg": {"n_repeats": 1, "img_count": 1}}
    assert json.loads(found["ss_tag_frequency"])["3_cat"] == {"a cat": 2, "red": 1}
    assert json.loads(found["ss_bucket_info"])["buckets"] == {"0": {"resolution": [128, 128], "count": 7}}
    assert found["ss_num_train_images"] == "6"
    assert found["ss_num_reg_images"] == "1"


def test_without_buckets_there_is_no_bucket_information(facts):
    subset = Subset(Path("/d/1_cat"))
    plan = DatasetPlan((dataset(picture(subset, "a.png", "cat"), enable_bucket=False),))
    found = network_metadata(settings(dataset_config=None, train_data_dir="/d"), plan, facts)
    assert found["ss_bucket_info"] == "null"
    assert found["ss_min_bucket_reso"] == "None"


def test_a_folder_used_twice_is_told_apart_and_its_tags_count_once(facts):
    subsets = [Subset(Path("/d/1_cat"), num_repeats=n) for n in (1, 2)]
    plan = DatasetPlan(tuple(dataset(picture(s, "a.png", "cat")) for s in subsets))
    found = network_metadata(settings(), plan, facts)
    assert json.loads(found["ss_dataset_dirs"]) == {
        "1_cat": {"n_repeats": 1, "img_count": 1},
        "1_cat (2)": {"n_repeats": 2, "img_count": 1},
    }
    assert json.loads(found["ss_tag_frequency"]) == {"1_cat": {"cat": 1}}


def test_network_arguments_are_text_and_absent_when_there_are_none(plan, facts):
    assert "ss_network_args" not in network_metadata(settings(), plan, facts)
    found = network_metadata(settings(conv_dim=4, conv_alpha=1, rank_dropout=0.1), plan, facts)
    assert json.loads(found["ss_network_args"]) == {
        "conv_dim": "4",
        "conv_alpha": "1.0",
        "rank_dropout": "0.1",
        "dropout": None,
    }
    from_file = settings(conv_dim=4, dim_from_weights=True, network_weights="x.safetensors")
    assert "dropout" not in json.loads(network_metadata(from_file, plan, facts)["ss_network_args"])


def test_an_optimizer_with_a_rate_of_its_own(plan, facts):
    found = network_metadata(settings(unet_lr=1e-4), plan, replace(facts, own_rate=True))
    assert found["ss_learning_rate"] == found["ss_unet_lr"] == "None"
    assert found["ss_lr_scheduler"] == "adafactor:0.001"


@pytest.mark.parametrize(
    ("family", "prediction", "variant", "version", "architecture", "resolution"),
    [
        ("sd1", "epsilon", "", "sd_v1", "stable-diffusion-v1/lora", "512x512"),
        ("sd1", "v", "", "sd_v1_v", "stable-diffusion-v1/lora", "512x512"),
        ("sd2", "epsilon", "", "sd_v2", "stable-diffusion-v2-512/lora", "512x512"),
        ("sd2", "v", "", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "768x768"),
        ("sdxl", "epsilon", "", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "1024x1024"),
        ("sd3", "flow", "5-medium", "5-medium", "stable-diffusion-3-5-medium/lora", "1024x1024"),
    ],
)
def test_families(plan, facts, family, prediction, variant, version, architecture, resolution):
    facts = replace(facts, family=family, prediction=prediction, variant=variant)
    found = network_metadata(settings(), plan, facts)
    assert found["ss_base_model_version"] == version
    assert found["ss_v2"] == str(family == "sd2")
    assert found["modelspec.architecture"] == architecture
    assert found["modelspec.resolution"] == resolution
    assert found["modelspec.prediction_type"] == ("v" if prediction == "v" else "epsilon")


def test_modelspec_fields_that_have_no_value_are_left_out(facts):
    assert "modelspec.encoder_layer" not in modelspec(settings(), facts)
    found = modelspec(settings(clip_skip=2, resolution="384,512", output_name=None), facts)
    assert found["modelspec.encoder_layer"] == "2"
    assert found["modelspec.resolution"] == "384x512"
    assert found["modelspec.title"].startswith("LoRA@1795243131")


def test_no_metadata_keeps_what_other_programs_need(plan, facts):
    found = network_metadata(settings(no_metadata=True, conv_dim=2), plan, facts)
    assert found == minimum_metadata(settings(no_metadata=True, conv_dim=2), facts)
    assert {key for key in found if key.startswith("ss_")} == {
        "ss_v2",
        "ss_base_model_version",
        "ss_network_module",
        "ss_network_dim",
        "ss_network_alpha",
        "ss_network_args",
    }
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_a_vae_and_a_model_folder(plan, facts, tmp_path):
    vae, folder = tmp_path / "my.vae.pt", tmp_path / "diffusers-model"
    vae.write_bytes(b"vae")
    folder.mkdir()
    found = network_metadata(settings(), plan, replace(facts, vae=vae, base_model=folder))
    assert found["ss_vae_name"] == "my.vae.pt"
    assert found["ss_new_vae_hash"] == hashlib.sha256(b"vae").hexdigest()
    assert found["ss_vae_hash"] == "e3b0c442"
    assert found["ss_sd_model_name"] == "diffusers-model"
    assert found["ss_sd_model_hash"] == found["ss_new_sd_model_hash"] == "IsADirectory"
    gone = network_metadata(settings(), plan, replace(facts, base_model=tmp_path / "gone.safetensors"))
    assert gone["ss_sd_model_name"] == "gone.safetensors"
    assert "ss_sd_model_hash" not in gone


def test_facts_at_a_later_step(facts):
    later = replace(facts, finished_at=None).at(120, 4)
    assert (later.steps, later.epoch) == (120, 4)
    assert later.finished_at is not None
    assert facts.steps == 3


@pytest.mark.parametrize("size", [10, 300_000])
def test_hashes_are_those_of_the_serialisation_with_ss_keys_alone(tmp_path, size):
    weights = {"b": torch.randn(size), "a": torch.randn(3, 5), "alpha": torch.tensor(2.0)}
    metadata = {"ss_steps": "3", "modelspec.title": "x", "atelier.version": "1"}
    path = tmp_path / "lora.safetensors"
    save_network(path, weights, metadata, torch.float16)
    halves = {name: tensor.half() for name, tensor in weights.items()}
    whole = save(halves, {"ss_steps": "3"})
    (length,) = struct.unpack("<Q", whole[:8])
    with safe_open(path, "pt") as file:
        found = file.metadata()
    assert found["sshs_model_hash"] == hashlib.sha256(whole[8 + length :]).hexdigest()
    assert found["sshs_legacy_hash"] == hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    assert metadata.items() <= found.items()


def test_precision_of_the_file_applies_to_every_tensor(tmp_path):
    weights = {"x.lora_down.weight": torch.randn(2, 3), "x.alpha": torch.tensor(1.0)}
    for dtype in (None, torch.float16, torch.bfloat16):
        save_network(tmp_path / "a.safetensors", weights, {}, dtype)
        assert {t.dtype for t in load_file(tmp_path / "a.safetensors").values()} == {dtype or torch.float32}


def test_pickled_files_carry_no_metadata(tmp_path):
    save_network(tmp_path / "a.ckpt", {"x": torch.ones(2)}, {"ss_steps": "3"}, torch.float16)
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert found.keys() == {"x"}
    assert found["x"].dtype == torch.float16


def test_values_too_large_for_the_precision_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(RunFault, match=r"x\.weight"):
        save_network(tmp_path / "a.safetensors", {"x.weight": torch.tensor([1e6])}, {}, torch.float16)
    assert list(tmp_path.glob("*a*")) == []


def test_words_for_people_go_into_modelspec(facts, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "small.png")
    words = {
        "metadata_title": "Red ball",
        "metadata_author": "Ann",
        "metadata_description": "A ball.",
        "metadata_license": "CC-BY-4.0",
        "metadata_tags": "ball, red",
        "metadata_usage_hint": "strength 0.8",
        "metadata_trigger_phrase": "sks ball",
        "metadata_merged_from": "one, two",
        "metadata_preprocessor": "none",
    }
    found = modelspec(
        settings(
            **words, metadata_is_negative_embedding=True, metadata_thumbnail=str(tmp_path / "small.png")
        ),
        facts,
    )
    assert {key: found[key.replace("metadata_", "modelspec.")] for key in words} == words
    assert found["modelspec.is_negative_embedding"] == "true"
    kind, _, data = found["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (tmp_path / "small.png").read_bytes()
    bare = modelspec(settings(), facts)
    assert bare["modelspec.title"] == "lora" and "modelspec.author" not in bare
    assert not [key for key in bare if key.endswith(("thumbnail", "is_negative_embedding", "timestep_range"))]


def test_a_large_thumbnail_is_made_small_and_a_wrong_one_refused(tmp_path):
    from PIL import Image

    Image.effect_noise((1500, 900), 80).save(tmp_path / "large.png")
    kind, _, data = thumbnail(tmp_path / "large.png").partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert kind == "data:image/jpeg;base64" and picture.size == (512, 307)
    (tmp_path / "no.png").write_text("<html>")
    with pytest.raises(InputError, match="no picture"):
        thumbnail(tmp_path / "no.png")


def test_a_range_of_timesteps_is_told(facts):
    found = modelspec(settings(min_timestep=200, max_timestep=800), facts)
    assert found["modelspec.timestep_range"] == "200,800"
