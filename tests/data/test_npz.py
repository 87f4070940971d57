"""sd-scripts' .npz caches beside the pictures: read when they fit, never believed otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backend.data.cache import LatentCache, TextCache, open_store
from backend.data.fill import Filled, fill_latents, fill_texts, take_texts
from backend.data.loader import Encoded, Loader
from backend.data.npz import NpzCaches
from backend.data.npz_texts import NpzTexts
from backend.families.base import CaptionFiles
from tests.data.data_kit import add_picture, noise_picture, plan_of

FACTOR = 0.18215


def encode(pixels: Tensor, noise: Tensor) -> Tensor:
    return torch.zeros(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8)


def write(path: Path, size: tuple[int, int], latents: tuple[int, ...] = (4, 8, 8), **more: Any) -> np.ndarray:
    values = np.random.default_rng(1).standard_normal(latents).astype(np.float32)
    values = values + np.float32(more.pop("fill", 0))
    crop = np.zeros(4)
    np.savez(path, **{"latents": values, "original_size": np.array(size), "crop_ltrb": crop, **more})
    return values


def fill(folder: Path, family: str = "sd1", **options: Any) -> tuple[LatentCache, Filled, Any]:
    plan = plan_of(folder, **options)
    cache = LatentCache(open_store("latents", "v", disk=False), "v", npz=NpzCaches(family, FACTOR))
    return cache, fill_latents(plan, cache, encode), plan


@pytest.mark.parametrize(
    ("family", "name", "used"),
    [
        ("sd1", "a_0096x0064_sd.npz", True),
        ("sd1", "a.npz", True),
        ("sd1", "a_0096x0064_sdxl.npz", True),
        ("sdxl", "a_0096x0064_sdxl.npz", True),
        ("sdxl", "a.npz", True),
        ("sdxl", "a_0096x0064_sd.npz", False),
        ("sd3", "a.npz", False),
        ("sd3", "a_0096x0064_sd.npz", False),
        ("sd1", "a_0064x0096_sd.npz", False),
    ],
)
def test_names(tmp_path: Path, family: str, name: str, used: bool) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", (96, 64))
    values = write(folder / name, (96, 64))
    cache, filled, plan = fill(folder, family)
    assert (filled.taken, filled.computed) == ((1, 0) if used else (0, 1))
    (batch,) = Loader(plan, seed=1, total_steps=1, encoded=Encoded(latents=cache)).epoch(1)
    wanted = torch.from_numpy(values) * FACTOR if used else torch.zeros(4, 8, 8)
    assert batch.latents is not None and torch.equal(batch.latents[0], wanted)


def test_they_are_not_kept_as_our_own(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", (96, 64))
    write(folder / "a.npz", (96, 64))
    cache, _, plan = fill(folder)
    plain = LatentCache(cache.store, "v")
    assert fill_latents(plan, plain, encode).computed == 1


@pytest.mark.parametrize(
    ("size", "latents", "more"),
    [
        ((96, 64), (4, 8, 16), {}),
        ((100, 64), (4, 8, 8), {}),
        ((96, 64), (16, 8, 8), {}),
        ((96, 64), (4, 8, 8), {"fill": np.nan}),
    ],
    ids=["shape", "size", "channels", "not finite"],
)
def test_what_does_not_fit_is_encoded(
    tmp_path: Path, size: tuple[int, int], latents: tuple[int, ...], more: dict[str, Any]
) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", (96, 64))
    write(folder / "a.npz", size, latents, **more)
    assert fill(folder)[1].computed == 1


def test_a_mirrored_one_is_needed_when_pictures_are_mirrored(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", (96, 64))
    write(folder / "a.npz", (96, 64))
    assert (fill(folder, flip_aug=True)[1].taken, fill(folder, flip_aug=True)[1].computed) == (1, 1)
    write(folder / "a.npz", (96, 64), latents_flipped=np.ones((4, 8, 8), np.float32))
    assert fill(folder, flip_aug=True)[1].taken == 2


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", None])
def test_damaged_files_are_passed_over(tmp_path: Path, data: bytes | None) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", (96, 64))
    write(folder / "a.npz", (96, 64))
    whole = (folder / "a.npz").read_bytes()
    (folder / "a.npz").write_bytes(whole[: len(whole) // 2] if data is None else data)
    assert fill(folder)[1].computed == 1


def test_a_picture_that_sd_scripts_saw_on_its_side_is_encoded(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_picture((64, 64)).save(folder / "a.png", exif=exif)
    write(folder / "a.npz", (64, 64))
    assert fill(folder, class_tokens="x")[1].computed == 1


def test_the_layout_is_that_of_real_files(golden_dir: Path) -> None:
    layout = json.loads((golden_dir / "out" / "cache_npz_layout.json").read_text())
    facts = layout["wide_0300x0180_sd.npz"]
    assert facts["latents"][:2] == [[4, 16, 16], "float32"]
    assert facts["latents_flipped"][0] == [4, 16, 16] and facts["original_size"][2] == [300, 180]


def test_a_file_of_sd3_holds_several_sizes_by_name(tmp_path: Path) -> None:
    folder, random = tmp_path / "set", np.random.default_rng(1)
    add_picture(folder, "a.png", (64, 64))
    plain, flipped, other = (
        random.standard_normal(s).astype(np.float32) for s in ((16, 8, 8), (16, 8, 8), (16, 4, 4))
    )
    arrays = {"latents_8x8": plain, "latents_flipped_8x8": flipped, "latents_4x4": other}
    sizes = {f"original_size_{size}": np.array((64, 64)) for size in ("8x8", "4x4")}
    np.savez(folder / "a_0064x0064_sd3.npz", **arrays, **sizes)  # type: ignore[arg-type]
    plan = plan_of(folder, flip_aug=True)
    npz = NpzCaches("sd3", 1.5305, 0.0609)
    cache = LatentCache(open_store("latents", "v", disk=False), "v", channels=16, npz=npz)
    filled = fill_latents(plan, cache, lambda pixels, noise: torch.zeros(len(pixels), 16, 8, 8))
    assert (filled.taken, filled.computed) == (2, 0)
    (picture,) = plan.datasets[0].pictures
    for flip, samples in ((False, plain), (True, flipped)):
        found = cache.get(picture, flip)
        assert found is not None and torch.allclose(found, (torch.from_numpy(samples) - 0.0609) * 1.5305)


LAYOUT = CaptionFiles(
    "_sd3_te",
    {
        "clip_l": ("lg_out", 0, 3),
        "clip_g": ("lg_out", 3, 8),
        "pooled_l": ("lg_pooled", 0, 3),
        "t5": ("t5_out", 0, 4),
    },
    {"lg_out": (77, 8), "lg_pooled": (8,), "t5_out": (6, 4)},
    {"apply_lg_attn_mask": False, "apply_t5_attn_mask": True},
)


def text_file(folder: Path, name: str = "a", **changes: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    arrays = {
        "lg_out": random.standard_normal((77, 8)).astype(np.float32),
        "lg_pooled": random.standard_normal(8).astype(np.float32),
        "t5_out": random.standard_normal((6, 4)).astype(np.float32),
        "apply_lg_attn_mask": np.array(False), "apply_t5_attn_mask": np.array(True), **changes,
    }  # fmt: skip
    np.savez(folder / f"{name}_sd3_te.npz", **arrays)  # type: ignore[arg-type]
    return arrays


def take(folder: Path, **options: Any) -> tuple[TextCache, int]:
    cache = TextCache(open_store("texts", "e", disk=False), "e")
    return cache, take_texts(plan_of(folder, **options), cache, NpzTexts(LAYOUT), seed=1)


def test_encoded_captions_are_taken_apart(tmp_path: Path) -> None:
    add_picture(tmp_path, "a.png", (64, 64), caption="one cat")
    arrays = text_file(tmp_path)
    cache, taken = take(tmp_path)
    entry = cache.get("one cat")
    assert taken == 1 and entry is not None and cache.has("one cat") and not cache.has("two cats")
    assert entry.keys() == LAYOUT.columns.keys()
    assert torch.equal(entry["clip_l"], torch.from_numpy(arrays["lg_out"][:, :3]))
    assert torch.equal(entry["clip_g"], torch.from_numpy(arrays["lg_out"][:, 3:]))
    assert torch.equal(entry["t5"], torch.from_numpy(arrays["t5_out"]))
    encoded = fill_texts(["one cat", "two cats"], cache, lambda texts: {"t5": torch.zeros(len(texts), 6, 4)})
    assert encoded.computed == 1, "only what the files do not have is encoded"


@pytest.mark.parametrize(
    "changes",
    [
        {"apply_t5_attn_mask": np.array(False)},
        {"t5_out": np.zeros((7, 4), np.float32)},
        {"lg_out": np.zeros((77, 9), np.float32)},
        {"lg_pooled": np.full(8, np.nan, np.float32)},
    ],
)
def test_captions_encoded_by_other_rules_are_left(tmp_path: Path, changes: dict[str, Any]) -> None:
    add_picture(tmp_path, "a.png", (64, 64), caption="one cat")
    text_file(tmp_path, **changes)
    assert take(tmp_path)[1] == 0


def test_a_caption_that_was_written_later_is_encoded_anew(tmp_path: Path) -> None:
    add_picture(tmp_path, "a.png", (64, 64), caption="one cat")
    text_file(tmp_path)
    later = (tmp_path / "a_sd3_te.npz").stat().st_mtime + 10
    os.utime(tmp_path / "a.txt", (later, later))
    assert take(tmp_path)[1] == 0


def test_captions_with_chance_in_them_are_encoded(tmp_path: Path) -> None:
    add_picture(tmp_path, "a.png", (64, 64), caption="one, two")
    text_file(tmp_path)
    assert take(tmp_path, shuffle_caption=True)[1] == 0
