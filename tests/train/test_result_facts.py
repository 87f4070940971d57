"""What is said of a finished file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from backend.data.types import Dataset, DatasetPlan, Subset
from backend.train.result_facts import file_facts, usage
from tests.weights.weights_kit import make_lora


@pytest.fixture
def plan(tmp_path: Path) -> DatasetPlan:
    own = Subset(image_dir=tmp_path, class_tokens="sks cat")
    other = Subset(image_dir=tmp_path / "reg", class_tokens="cat", is_reg=True)
    sizes = {"min_bucket_reso": 64, "max_bucket_reso": 512, "bucket_reso_steps": 64}
    return DatasetPlan(
        (Dataset(subsets=(own, replace(own), other), resolution=(64, 64), batch_size=1, pictures=(),
                 enable_bucket=False, bucket_no_upscale=False, **sizes),)
    )  # fmt: skip


def test_a_lora_is_described_from_its_file(tmp_path: Path, plan: DatasetPlan) -> None:
    path = make_lora(tmp_path / "my cat.safetensors")
    facts = file_facts(path, plan)
    assert facts["usage"] == "<lora:my cat:1> sks cat"
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["size"] == path.stat().st_size and facts["modules"] > 0
    assert facts["norms"]["denoiser"] > 0


def test_the_words_of_regularisation_pictures_are_not_what_was_taught(
    tmp_path: Path, plan: DatasetPlan
) -> None:
    assert usage(tmp_path / "m.safetensors", "checkpoint", plan) == "sks cat"
    assert usage(tmp_path / "m.safetensors", "embedding", plan) == "m"


def test_nothing_is_said_of_what_cannot_be_read(tmp_path: Path, plan: DatasetPlan) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no model")
    assert file_facts(tmp_path / "bad.safetensors", plan) == {}
