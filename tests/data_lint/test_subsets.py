"""Other kinds of subsets: metadata files, pictures that guide, pictures held out."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from backend.data.lint import Findings, lint
from backend.data.plan import build_plan
from backend.demo.planted import Planted
from backend.demo.world import random_scene, render
from backend.errors import InputError
from backend.settings import Settings


def found(findings: Findings) -> dict[str, set[str]]:
    return {one.rule: {example.path.name for example in one.examples} for one in findings.findings}


def pictures(folder: Path, number: int) -> list[Path]:
    folder.mkdir()
    rng = random.Random(2)
    paths = [folder / f"{i}.png" for i in range(number)]
    for i, path in enumerate(paths):
        render(random_scene(rng), i).save(path)
    return paths


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """Six pictures: one has no caption, one a long one, one is a copy, one is no picture."""
    paths = pictures(tmp_path / "pictures", 6)
    paths[4].write_bytes(paths[0].read_bytes())
    paths[5].write_bytes(b"")
    texts = [
        "a cat",
        "",
        ", ".join(f"{i} green leaves" for i in range(40)),
        "a dog",
        "a cat again",
        "nothing",
    ]
    lines = [
        json.dumps({"image_path": path.name, "caption": text})
        for path, text in zip(paths, texts, strict=True)
    ]
    (tmp_path / "pictures.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = tmp_path / "dataset.toml"
    config.write_text(
        "[[datasets]]\nresolution = 128\nbatch_size = 1\n[[datasets.subsets]]\n"
        'image_dir = "pictures"\nmetadata_file = "pictures.jsonl"\n',
        encoding="utf-8",
    )
    return config


def test_metadata_gives_the_captions(metadata: Path) -> None:
    findings = lint(metadata)
    assert found(findings) == {
        "unreadable": {"5.png"}, "caption_missing": {"1.png"}, "caption_cut": {"2.png"}, "exact_duplicate": {"4.png"},
    }  # fmt: skip
    # A file that metadata names cannot be moved without breaking the metadata.
    assert all(one.fix is None for one in findings.findings)


def test_broken_metadata_is_named_with_its_line(metadata: Path) -> None:
    path = metadata.with_name("pictures.jsonl")
    path.write_text(path.read_text(encoding="utf-8") + "\n{oops", encoding="utf-8")
    with pytest.raises(InputError, match="line 7"):
        lint(metadata)


def test_metadata_in_settings(metadata: Path) -> None:
    folder = metadata.parent
    values = {
        "in_json": str(folder / "pictures.jsonl"),
        "train_data_dir": str(folder / "pictures"),
        "resolution": "128",
    }
    assert found(lint(Settings.from_flat(values))) == found(lint(metadata))


def test_pictures_that_guide_are_no_masks(planted: Planted) -> None:
    config = planted.config.with_name("control.toml")
    config.write_text(
        "[[datasets]]\nresolution = 128\nbatch_size = 1\n[[datasets.subsets]]\n"
        'image_dir = "masked"\nconditioning_data_dir = "masks"\ncaption_extension = ".txt"\n',
        encoding="utf-8",
    )
    findings = lint(config, control=True)
    assert set(found(findings)) == {"mask_missing", "mask_unreadable", "mask_spare"}
    missing = findings.get("mask_missing")
    assert missing is not None and missing.examples[0].detail == "has no guiding picture in masks"


def test_held_out_pictures_are_those_of_the_training(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "10_sks thing", 8)
    for path in paths:
        path.with_suffix(".txt").write_text("sks thing", encoding="utf-8")
    values = {
        "train_data_dir": str(tmp_path),
        "resolution": "128",
        "validation_split": 0.5,
        "validation_seed": 3,
    }
    plan = build_plan(Settings.from_flat(values))
    assert plan.validation is not None
    held = {picture.path.name for part in plan.validation.datasets for picture in part.pictures}
    trained = sorted({path.name for path in paths} - held)
    assert lint(Settings.from_flat(values)).findings == ()

    one, other = sorted(held)[0], trained[0]
    (paths[0].parent / one).write_bytes((paths[0].parent / other).read_bytes())
    assert found(lint(Settings.from_flat(values))) == {"validation_leak": {one}}
