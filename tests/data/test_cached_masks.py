"""Masks beside cached latents: made once, never decoded again, and the pictures that guide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backend.data import images
from backend.data.cache import LatentCache, open_store
from backend.data.fill import fill_latents
from backend.data.loader import Encoded, Loader
from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.errors import InputError
from tests.data.data_kit import add_picture, notes_of, plan_of, settings


def encode(pixels: Tensor, noise: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(pixels, 8)


@pytest.fixture
def alpha(tmp_path: Path) -> Path:
    folder = tmp_path / "alpha"
    folder.mkdir()
    image = Image.new("RGBA", (96, 64), (200, 0, 0, 255))
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))))
    image.save(folder / "a.png")
    add_picture(folder, "b.png", (96, 64))
    return folder


@pytest.fixture
def with_masks(pictures: Callable[..., Path], tmp_path: Path) -> Path:
    pictures("set", 2)
    pictures("masks", 2, caption=None)
    config = tmp_path / "d.toml"
    config.write_text(
        '[[datasets]]\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = "set"\nconditioning_data_dir = "masks"\nflip_aug = true\nnum_repeats = 8\n'
    )
    return config


def masks_of(plan: DatasetPlan, cache: LatentCache | None = None) -> list[tuple[object, Tensor]]:
    """Masks by batch; a batch of whole pictures has none."""
    found = list(Loader(plan, seed=3, total_steps=9, encoded=Encoded(latents=cache)).epoch(1))
    assert any(batch.masks is not None for batch in found)
    return [(batch.keys, torch.empty(0) if batch.masks is None else batch.masks) for batch in found]


@pytest.mark.parametrize("kind", ["alpha", "files"])
@pytest.mark.parametrize("disk", [False, True])
def test_cached_masks_are_those_of_the_files(
    alpha: Path,
    tmp_path: Path,
    kind: str,
    disk: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "alpha":
        plan = plan_of(
            alpha, alpha_mask=True, class_tokens="x", train_batch_size=2, flip_aug=True, dataset_repeats=8
        )
    else:
        plan = build_plan(
            settings(dataset_config=str(request.getfixturevalue("with_masks")), masked_loss=True)
        )
    live = masks_of(plan)
    cache = LatentCache(open_store("latents", "v", disk=disk), "v")
    fill_latents(plan, cache, encode)
    monkeypatch.setattr(images, "decode_with_alpha", None)
    monkeypatch.setattr(images, "decode_mask", None)
    cached = masks_of(plan, cache)
    for (keys, wanted), (same, found) in zip(live, cached, strict=True):
        assert keys == same and torch.equal(wanted, found)


def test_only_the_mask_that_changed_is_made_again(with_masks: Path) -> None:
    def fill() -> LatentCache:
        plan = build_plan(settings(dataset_config=str(with_masks), masked_loss=True))
        cache = LatentCache(open_store("latents", "v", disk=True), "v")
        filled = fill_latents(plan, cache, encode)
        computed.append(filled.computed)
        return cache

    computed: list[int] = []
    fill()
    Image.new("L", (96, 64), 9).save(with_masks.parent / "masks" / "img_00.png")
    cache = fill()
    assert computed == [4, 0]
    plan = build_plan(settings(dataset_config=str(with_masks), masked_loss=True))
    mask = cache.mask(plan.datasets[0].pictures[0])
    assert mask is not None and set(mask.ravel().tolist()) == {9}


def test_a_black_mask_is_an_error_and_one_of_another_size_is_scaled(with_masks: Path) -> None:
    masks = with_masks.parent / "masks"
    Image.new("L", (48, 32), 100).save(masks / "img_00.png")
    plan = build_plan(settings(dataset_config=str(with_masks), masked_loss=True))
    assert plan.image_count == 2
    scaled = [note.what for note in plan.notes if "scaled" in note.what]
    assert scaled == ["1 mask of another size will be scaled: img_00.png."]
    Image.new("L", (96, 64), 0).save(masks / "img_01.png")
    for _ in range(2):
        with pytest.raises(InputError, match=r"Mask img_01.png is black all over"):
            build_plan(settings(dataset_config=str(with_masks), masked_loss=True))


def test_pictures_that_guide_are_cut_and_mirrored_like_their_picture(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    folder = pictures("set", 2, (160, 64))
    (tmp_path / "guides").mkdir()
    for file in folder.glob("*.png"):
        Image.open(file).save(tmp_path / "guides" / file.name)
    config = tmp_path / "d.toml"
    config.write_text(
        '[[datasets]]\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = "set"\nconditioning_data_dir = "guides"\nflip_aug = true\nrandom_crop = true\nnum_repeats = 6\n'
    )
    plan = build_plan(settings(dataset_config=str(config)), control=True)
    for batch in Loader(plan, seed=3, total_steps=9).epoch(1):
        assert batch.masks is None and batch.conditioning is not None and batch.pixels is not None
        assert torch.equal(batch.conditioning, batch.pixels)
    with pytest.raises(InputError, match="need masked_loss"):
        build_plan(settings(dataset_config=str(config)))


def test_every_picture_needs_one_that_guides(pictures: Callable[..., Path], tmp_path: Path) -> None:
    pictures("set", 2)
    pictures("guides", 1, caption=None)
    pictures("more", 1)
    config = tmp_path / "d.toml"
    subset = '[[datasets.subsets]]\nimage_dir = "set"\nconditioning_data_dir = "guides"\n'
    config.write_text("[[datasets]]\n" + subset)
    with pytest.raises(InputError, match=r"1 picture without a conditioning picture: img_01.png"):
        build_plan(settings(dataset_config=str(config)), control=True)
    config.write_text("[[datasets]]\n" + subset + '[[datasets.subsets]]\nimage_dir = "more"\n')
    with pytest.raises(InputError, match="line 5: A subset has no conditioning_data_dir"):
        build_plan(settings(dataset_config=str(config)), control=True)


def test_a_picture_changed_during_a_run_keeps_its_latents(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=1)
    plan = plan_of(folder)
    cache = LatentCache(open_store("latents", "v", disk=True), "v")
    fill_latents(plan, cache, encode)
    (before,) = Loader(plan, seed=1, total_steps=1, encoded=Encoded(latents=cache)).epoch(1)
    add_picture(folder, "img_00.png", (96, 80))
    (after,) = Loader(plan, seed=1, total_steps=1, encoded=Encoded(latents=cache)).epoch(1)
    assert before.latents is not None and after.latents is not None
    assert torch.equal(before.latents, after.latents)
    later = plan_of(folder)
    again = LatentCache(open_store("latents", "v", disk=True), "v")
    assert fill_latents(later, again, encode).computed == 1
    assert "left out" not in notes_of(later)
