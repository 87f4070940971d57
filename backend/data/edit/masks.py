"""Masks painted in the page, saved as grey pictures that training weighs the loss with.

A mask has the name of its picture, ends in .png and lies in a folder of its own: white is learnt,
black is not. It has the size of the upright picture.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.data import images
from backend.data.edit.files import copy_new, replace_bytes, target_folder, write_problem
from backend.data.headers import EXTENSIONS, HeaderError, read_header
from backend.errors import InputError, RunFault
from backend.system import paths

EARLIER = "_earlier"
"""Folder, inside a folder of masks, of those that were painted anew."""

Array = NDArray[Any]


def masks_folder(folder: Path) -> Path:
    """Where masks of a picture folder go when no other place is chosen: below Atelier's home."""
    place = folder.expanduser().resolve()
    mark = hashlib.blake2b(str(place).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    words = re.sub(r"[^\w -]+", "-", place.name).strip("- ")[:60]
    return paths.home() / "masks" / f"masks-{words or 'pictures'}-{mark}"


def mask_of(picture: Path, folder: Path) -> Path | None:
    """The mask file of a picture: of the same name, with the ending of any picture."""
    endings = (".png", *sorted(EXTENSIONS - {".png"}))
    places = (folder / f"{picture.stem}{ending}" for ending in endings)
    return next((place for place in places if place.is_file()), None)


def without_mask(pictures: Iterable[Path], folder: Path) -> list[Path]:
    """The pictures that have no mask in ``folder``."""
    try:
        stems = {path.stem for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS}
    except OSError:
        stems = set[str]()
    return [picture for picture in pictures if picture.stem not in stems]


def load_mask(picture: Path, folder: Path) -> NDArray[np.uint8] | None:
    """The mask of a picture, (height, width) of the upright picture; None when there is none.

    Raises InputError when the mask or the picture cannot be read.
    """
    path = mask_of(picture, folder)
    if path is None:
        return None
    try:
        mask = images.decode_mask(path.read_bytes())
    except (images.DecodeError, OSError) as error:
        raise InputError(f"{path.name} {error}", where=str(path)) from error
    return _to_size(mask, upright_size(picture))


def save_mask(picture: Path, painted: Array, folder: Path, *, invert: bool = False) -> Path:
    """Save what was painted as the mask of ``picture`` in ``folder``, and give its path.

    ``painted`` is (H, W) grey, (H, W, 4) a painted layer whose alpha is the mask, or (H, W, 3) of
    which red counts; uint8, or float in 0..1. Other sizes are scaled to the picture's. A mask that
    was there before is kept in the folder '_earlier'.

    Raises:
        InputError: the mask is black all over, has another shape than the picture, or the folder is
            the picture's own.
        RunFault: it cannot be written; an earlier mask is as it was.
    """
    size = upright_size(picture)
    mask = _grey(painted)
    mask = 255 - mask if invert else mask
    _check(mask, size, picture)
    target = target_folder(folder, picture.parent) / f"{picture.stem}.png"
    twins = [p.name for p in sorted(picture.parent.glob("*")) if _twin(p, picture)]
    if twins:
        raise InputError(
            f"{picture.name} and {twins[0]} would share the mask {target.name}",
            where=str(picture.parent),
            next="give one of them another name",
        )
    try:
        before = mask_of(picture, target.parent)
        if before is not None:
            _keep(before)
        replace_bytes(target, _png(_to_size(mask, size)))
        if before is not None and before != target:
            before.unlink()  # kept above; two masks of one name would leave it open which counts
    except OSError as error:
        raise RunFault(write_problem(target, error)) from error
    return target


def upright_size(picture: Path) -> tuple[int, int]:
    """(width, height) of a picture as it is seen. Raises InputError."""
    try:
        return read_header(picture).size
    except (HeaderError, OSError) as error:
        raise InputError(f"{picture.name} {error}", where=str(picture)) from error


def _grey(painted: Array) -> NDArray[np.uint8]:
    values = np.asarray(painted)
    if values.ndim == 3:
        values = values[:, :, 3 if values.shape[2] == 4 else 0]
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"a mask of shape {np.asarray(painted).shape} is no picture")
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        values = np.nan_to_num(values) * 255.0 + 0.5
    return np.clip(values, 0, 255).astype(np.uint8)


def _check(mask: NDArray[np.uint8], size: tuple[int, int], picture: Path) -> None:
    if not mask.any():
        raise InputError(
            f"the mask of {picture.name} is black all over, so nothing of it would be learnt (loss 0)",
            next="paint over what is to be learnt",
        )
    height, width = mask.shape
    if abs(width * size[1] - height * size[0]) > 2 * max(size):
        raise InputError(
            f"the mask is {width}x{height} px, another shape than {picture.name} ({size[0]}x{size[1]} px)",
            next="paint it on this picture",
        )


def _twin(path: Path, picture: Path) -> bool:
    same = path.stem == picture.stem and path.suffix.lower() in EXTENSIONS
    return same and path.name != picture.name


def _to_size(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    shrinks = mask.shape[1] >= size[0] and mask.shape[0] >= size[1]
    return images.resize(mask, size, "area" if shrinks else "linear")


def _keep(path: Path) -> None:
    folder = path.parent / EARLIER
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        more = "" if number == 1 else f"-{number}"
        try:
            copy_new(path, folder / f"{path.stem}-{stamp}{more}{path.suffix}")
            break
        except FileExistsError:
            continue


def _png(mask: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(mask).save(data, "PNG")
    return data.getvalue()
