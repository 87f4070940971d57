"""Pictures and masks as tensors, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from backend.data.headers import HeaderError
from backend.data.images import DecodeError, decode, decode_mask
from backend.errors import InputError


def open_picture(path: str, key: str) -> Image.Image:
    """A picture's file, upright, RGB, transparency on white.

    Raises:
        InputError: it cannot be read; ``key`` is the option it was named by.
    """
    return Image.fromarray(_read(path, key, mask=False))


def open_mask(path: str, key: str = "mask") -> Image.Image:
    """A mask's file in grey.

    Raises:
        InputError: it cannot be read.
    """
    return Image.fromarray(_read(path, key, mask=True))


def _read(path: str, key: str, mask: bool) -> np.ndarray:
    try:
        data = Path(path).read_bytes()
        return decode_mask(data) if mask else decode(data)
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(
            "the picture cannot be read", where=path, why=why, next="Choose a picture that exists.", key=key
        ) from None
    except (DecodeError, HeaderError) as error:
        raise InputError(
            f"the picture {error}", where=path, next="Choose a PNG, JPEG or WebP file.", key=key
        ) from None


def covering(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture at another size: scaled until it covers it, the middle cut out. Pixels."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def to_pixels(image: Image.Image) -> Tensor:
    """Pixels (1, 3, H, W) in -1..1."""
    values = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return (values.permute(2, 0, 1) / 127.5 - 1)[None]


def latent_mask(mask: Image.Image, scale: int) -> Tensor:
    """Where latents are drawn anew (1, 1, h, w), 1 or 0: every place of which a pixel is touched."""
    values = torch.from_numpy(np.array(mask, dtype=np.float32) / 255)[None, None]
    return (F.max_pool2d(values, scale) >= 0.5).float()


def to_image(pixels: Tensor) -> Image.Image:
    """An RGB picture of pixels (3, H, W) in -1..1."""
    scaled = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    return Image.fromarray(scaled.permute(1, 2, 0).numpy())


def constant_fault(image: Image.Image) -> str:
    """A sentence with the likely cause when a picture is (nearly) one colour, else ''."""
    values = np.asarray(image, dtype=np.float32)
    if float(values.std(axis=(0, 1)).max()) >= 1.0:
        return ""
    colour = "black" if float(values.mean()) < 2 else "one colour only"
    cause = (
        "the VAE likely overflowed in half precision (try 'VAE in full precision')"
        if colour == "black"
        else "the weights are likely broken by too high a learning rate, or the file is no finished model"
    )
    return f"the picture is {colour}: {cause}"
