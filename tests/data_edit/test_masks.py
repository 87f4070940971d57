"""Masks painted in the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.data.edit import load_mask, mask_of, masks_folder, save_mask, without_mask
from backend.data.plan import build_plan
from backend.errors import InputError
from backend.settings import Settings
from tests.data.data_kit import add_picture, noise_picture

Make = Callable[..., Path]


def painted(width: int, height: int) -> np.ndarray:
    """A layer as an image editor gives it: colour with alpha where something was painted."""
    layer = np.zeros((height, width, 4), dtype=np.uint8)
    layer[: height // 2, :, :] = (255, 0, 0, 255)
    return layer


def test_a_painted_layer_becomes_a_grey_file_that_training_reads(originals: Make, tmp_path: Path) -> None:
    source, masks = originals(3), tmp_path / "masks"
    assert [path.name for path in without_mask(sorted(source.glob("*.png")), masks)] == [
        "img_00.png", "img_01.png", "img_02.png",
    ]  # fmt: skip
    for picture in sorted(source.glob("*.png")):
        width, height = Image.open(picture).size
        saved = save_mask(picture, painted(width, height), masks)
        assert saved == masks / picture.name == mask_of(picture, masks)
        image = Image.open(saved)
        assert image.mode == "L" and image.size == (width, height)
    assert without_mask(sorted(source.glob("*.png")), masks) == []
    config = tmp_path / "set.toml"
    config.write_text(
        f"[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = {str(source)!r}\n"
        f"conditioning_data_dir = {str(masks)!r}\n",
        encoding="utf-8",
    )
    plan = build_plan(Settings.from_flat({"dataset_config": str(config), "masked_loss": True}))
    assert [p.mask_path.name for p in plan.datasets[0].pictures if p.mask_path] == [
        "img_00.png", "img_01.png", "img_02.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "array",
    [
        painted(96, 64),
        painted(96, 64)[:, :, 3],
        painted(96, 64)[:, :, 3] > 0,
        painted(96, 64)[:, :, 3] / 255.0,
        painted(96, 64)[:, :, :3],
        painted(48, 32),
        painted(960, 640),
    ],
)
def test_every_form_of_array_gives_the_same_mask(tmp_path: Path, array: np.ndarray) -> None:
    picture = add_picture(tmp_path / "set", "a.png", (96, 64))
    save_mask(picture, array, tmp_path / "masks")
    mask = load_mask(picture, tmp_path / "masks")
    assert mask is not None and mask.shape == (64, 96) and mask.dtype == np.uint8
    assert mask[:30].min() == 255 and mask[34:].max() == 0


def test_inverted(tmp_path: Path) -> None:
    picture = add_picture(tmp_path / "set", "a.png", (96, 64))
    save_mask(picture, painted(96, 64), tmp_path / "masks", invert=True)
    mask = load_mask(picture, tmp_path / "masks")
    assert mask is not None and mask[:30].max() == 0 and mask[34:].min() == 255


def test_a_mask_has_the_size_of_the_upright_picture(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_picture((96, 64)).save(folder / "turned.jpg", exif=exif)
    save_mask(folder / "turned.jpg", painted(64, 96), tmp_path / "masks")
    assert Image.open(tmp_path / "masks" / "turned.png").size == (64, 96)


def test_an_earlier_mask_is_kept(tmp_path: Path) -> None:
    picture, masks = add_picture(tmp_path / "set", "a.png", (96, 64)), tmp_path / "masks"
    masks.mkdir()
    noise_picture((96, 64), 5).save(masks / "a.jpg")
    first = (masks / "a.jpg").read_bytes()
    save_mask(picture, painted(96, 64), masks)
    second = (masks / "a.png").read_bytes()
    save_mask(picture, painted(96, 64), masks, invert=True)
    kept = sorted((masks / "_earlier").iterdir())
    assert {path.read_bytes() for path in kept} == {first, second}
    assert [path.name for path in masks.iterdir() if path.is_file()] == ["a.png"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((64, 96), dtype=np.uint8), "black all over"),
        (np.full((96, 64), 255, dtype=np.uint8), "another shape than a.png"),
        (np.zeros((0, 3)), "is no picture"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(tmp_path: Path, array: np.ndarray, said: str) -> None:
    picture = add_picture(tmp_path / "set", "a.png", (96, 64))
    with pytest.raises(InputError, match=said):
        save_mask(picture, array, tmp_path / "masks")
    assert not (tmp_path / "masks" / "a.png").exists()


def test_masks_never_go_among_the_pictures(originals: Make) -> None:
    source = originals(1)
    with pytest.raises(InputError, match="where the originals are"):
        save_mask(source / "img_00.png", painted(96, 64), source)


def test_pictures_of_one_stem_would_share_a_mask(tmp_path: Path) -> None:
    picture = add_picture(tmp_path / "set", "a.png", (96, 64))
    add_picture(tmp_path / "set", "a.jpg", (96, 64))
    with pytest.raises(InputError, match=r"a\.png and a\.jpg would share"):
        save_mask(picture, painted(96, 64), tmp_path / "masks")


def test_the_usual_place_is_below_home_and_no_training_folder(tmp_path: Path, home: Path) -> None:
    place = masks_folder(tmp_path / "10_sks dog")
    assert place.is_relative_to(home) and not place.name[0].isdigit()
    assert place != masks_folder(tmp_path / "other" / "10_sks dog")
