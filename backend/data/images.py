"""Pictures and masks as arrays: decoded whole, upright, 8-bit sRGB, brought to their bucket.

Arrays are (height, width, 3) uint8 for pictures and (height, width) uint8 for masks.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from backend.data.headers import HeaderError, parse_header
from backend.data.types import Geometry

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[np.uint8]

MAX_PIXELS = 200_000_000
"""A picture of more pixels is not opened."""

DECODER = 2
"""Counts changes to what this module makes of a file; part of the keys of caches."""


class DecodeError(ValueError):
    """A picture that cannot be decoded; the text completes 'name ...'."""


def decode(data: bytes) -> Array:
    """A picture file's bytes as upright 8-bit sRGB, transparency on white.

    Raises :class:`DecodeError` for anything but a whole picture of a kind in ``headers.READ`` and of
    a sensible size.
    """
    return np.asarray(_to_rgb(_open(data)))


def decode_with_alpha(data: bytes) -> tuple[Array, Array | None]:
    """:func:`decode`, and the upright alpha channel where the picture has one."""
    image = _open(data)
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if _transparent(image) else None
    return np.asarray(_to_rgb(image)), alpha


def decode_mask(data: bytes) -> Array:
    """A mask picture: its first channel (red, or grey), upright."""
    return np.ascontiguousarray(decode(data)[:, :, 0])


class Checked(NamedTuple):
    """What decoding a picture showed."""

    sound_profile: bool
    """Its colour profile, if it has one, can be read; else its colours count as sRGB."""
    seen_through: bool
    """Some of it is at least a little transparent."""


def check(data: bytes) -> Checked:
    """Decode a picture and drop it. Raises :class:`DecodeError` when it does not decode whole."""
    image = _open(data)
    alpha = image.convert("RGBA").getchannel("A") if _transparent(image) else None
    return Checked(
        _sound_profile(image),
        alpha is not None and cast("tuple[int, int]", alpha.getextrema())[0] < 255,
    )


def has_sound_profile(data: bytes) -> bool:
    """As :class:`Checked` says, of a picture that is known to decode: only its head is read."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return _sound_profile(image)


def _sound_profile(image: Image.Image) -> bool:
    profile = image.info.get("icc_profile")
    return not profile or _is_srgb(profile) or _readable(profile)


def check_mask(data: bytes) -> None:
    """As :func:`check` for a mask; one that is black all over is refused as well."""
    if not decode_mask(data).any():
        raise DecodeError("is black all over, so that nothing of its picture would be learnt")


def fit(pixels: Array, geometry: Geometry, interpolation: str | None = None) -> Array:
    """Resize to ``geometry.resized`` and cut out the bucket. Works for pictures and masks.

    Without a named filter: area when both sides shrink, else Lanczos.
    """
    resized = resize(pixels, geometry.resized, interpolation)
    (left, top), (width, height) = geometry.crop, geometry.bucket
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def fit_mask(mask: Array, geometry: Geometry) -> Array:
    """As :func:`fit`; a mask of other size than its picture is scaled to it."""
    shrinks = mask.shape[1] >= geometry.resized[0] and mask.shape[0] >= geometry.resized[1]
    return fit(mask, geometry, "area" if shrinks else "linear")


def resize(pixels: Array, size: tuple[int, int], interpolation: str | None = None) -> Array:
    """``pixels`` at ``size`` (width, height), unchanged when it has that size."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if interpolation is None:
        interpolation = "area" if size[0] <= width and size[1] <= height else "lanczos"
    if interpolation in ("lanczos", "box"):
        from PIL import Image

        filters = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
        return np.asarray(Image.fromarray(pixels).resize(size, filters[interpolation]))
    return _cv2_resize(pixels, size, interpolation)


def mirror(pixels: Array) -> Array:
    """Left and right exchanged."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _cv2_resize(pixels: Array, size: tuple[int, int], interpolation: str) -> Array:
    import cv2

    filters: dict[str, int] = {
        "nearest": cv2.INTER_NEAREST_EXACT,
        "bilinear": cv2.INTER_LINEAR,
        "linear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
    }
    return np.asarray(cv2.resize(pixels, size, interpolation=filters[interpolation]), dtype=np.uint8)


def _open(data: bytes) -> Image.Image:
    """The first frame, decoded whole and turned upright."""
    try:
        header = parse_header(io.BytesIO(data))
    except HeaderError as error:
        raise DecodeError(str(error)) from None
    megapixels = header.size[0] * header.size[1] / 1e6
    if header.size[0] * header.size[1] > MAX_PIXELS:
        raise DecodeError(f"has {megapixels:.0f} megapixels; limit {MAX_PIXELS / 1e6:.0f}")
    image = _load(data, header.kind)
    # Pillow turns a TIFF upright itself.
    upright = header.orientation == 1 or header.kind == "tiff"
    return image if upright else image.transpose(_turn(header.orientation))


def _load(data: bytes, kind: str) -> Image.Image:
    from PIL import Image

    _lift_pixel_limit()
    try:
        image = Image.open(io.BytesIO(data), formats=[kind.upper()])
        image.load()
    except Exception as error:  # decoders raise many kinds
        if _cut_off(data, kind):
            raise DecodeError("is cut off (pixel data ends early)") from None
        raise DecodeError(f"is damaged and cannot be decoded ({error})") from None
    return image


@lru_cache(maxsize=1)
def _lift_pixel_limit() -> None:
    """Our own limit is checked before a file is opened; Pillow's would only warn in between."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def _turn(orientation: int) -> Image.Transpose:
    from PIL import Image

    turns = Image.Transpose
    return {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }[orientation]


def _cut_off(data: bytes, kind: str) -> bool:
    """True when the end of the file is missing."""
    if kind == "png":
        return b"IEND" not in data[-16:]
    if kind == "jpeg":
        return not data.rstrip(b"\x00").endswith(b"\xff\xd9")
    if kind in ("gif", "tiff", "avif"):
        return kind == "gif" and not data.rstrip(b"\x00").endswith(b";")
    stored = 4 if kind == "webp" else 2
    said = int.from_bytes(data[stored : stored + 4], "little") + (8 if kind == "webp" else 0)
    return len(data) < said


def _transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB of any mode, transparency composited on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image).convert("RGB")
    if _transparent(image):
        return _on_white(image)
    profile = image.info.get("icc_profile")
    if profile and (converted := _to_srgb(image, profile)) is not None:
        return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits (65535 becomes 255)."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    top = 65535.0 if values.max(initial=0) > 255 or image.mode.startswith("I;16") else 255.0
    return Image.fromarray(np.clip(values * 255 / top + 0.5, 0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    rgba = image.convert("RGBA")
    colours = rgba.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile and image.mode == "RGBA":
        colours = _to_srgb(colours, profile) or colours
    page = Image.new("RGB", image.size, (255, 255, 255))
    page.paste(colours, mask=rgba.getchannel("A"))
    return page


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """``image`` converted from its colour profile, or None when the profile does not fit or is broken."""
    if _is_srgb(profile):
        return None
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        done: Any = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return done


def _is_srgb(profile: bytes) -> bool:
    return len(profile) < 4096 and b"sRGB" in profile


def _readable(profile: bytes) -> bool:
    from PIL import ImageCms

    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    return True


@lru_cache(maxsize=1)
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")
