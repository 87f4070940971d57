"""Pixels of every kind of picture: upright, 8-bit, composited, converted, cut."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from backend.data import images
from backend.data.buckets import BucketRules, assign
from backend.data.types import Geometry
from tests.data.data_kit import noise_picture


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation: int) -> None:
    upright = noise_picture((12, 8))
    turns = Image.Transpose
    undo = {
        1: None, 2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE, 6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(upright if undo is None else upright.transpose(undo), exif=exif)
    np.testing.assert_array_equal(images.decode(data), np.asarray(upright))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.new("RGB", (8, 8), (0, 0, 0))
    grey.paste((255, 255, 255), (4, 0, 8, 8))
    pixels = images.decode(stored(grey.convert(mode)))
    np.testing.assert_array_equal(pixels, np.asarray(grey))


def test_hidden_colours_do_not_show() -> None:
    results = []
    for hidden in ((255, 0, 0, 0), (0, 255, 0, 0)):
        image = Image.new("RGBA", (8, 8), hidden)
        image.paste((10, 20, 30, 255), (0, 0, 4, 8))
        results.append(images.decode(stored(image)))
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0][0, 7].tolist() == [255, 255, 255]
    assert results[0][0, 0].tolist() == [10, 20, 30]


def test_palette_with_transparency_is_on_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((0, 0), 0)
    pixels = images.decode(stored(image, transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [0, 0, 200]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = images.decode(stored(Image.fromarray(values)))
    np.testing.assert_allclose(pixels[..., 0], values / 257, atol=1)


def test_16_bit_colour_is_scaled() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    data = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    np.testing.assert_allclose(images.decode(data), values / 257, atol=1)


def test_cmyk_is_converted() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = images.decode(stored(image, "JPEG", quality=95))[4, 4].astype(int)
    assert red[0] > 200 and red[1] < 60 and red[2] < 60


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (8, 0, 16, 16))
    options = {"quality": 100} if kind == "JPEG" else {}
    pixels = images.decode(stored(image, kind, icc_profile=press_profile(), **options)).astype(int)
    assert np.abs(pixels[8, 2] - 119).max() <= 3, "L* 50 in sRGB, and not the cyan of a screen"
    assert pixels[8, 13].min() >= 252


def test_a_broken_profile_is_passed_over() -> None:
    image = noise_picture((8, 8))
    np.testing.assert_array_equal(
        images.decode(stored(image, icc_profile=b"no profile" * 600)), np.asarray(image)
    )


def test_another_colour_space_is_converted() -> None:
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = noise_picture((8, 8))
    np.testing.assert_allclose(images.decode(stored(image, icc_profile=lab_like)), np.asarray(image), atol=1)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(images.DecodeError, match="megapixels"):
        images.decode(stored(noise_picture((20, 20))))


@pytest.mark.parametrize(("source", "inside"), [((300, 200), True), ((50, 40), False)])
def test_default_filter_is_area_for_shrinking_and_lanczos_for_enlarging(
    source: tuple[int, int], inside: bool
) -> None:
    picture = noise_picture(source)
    pixels, size = np.asarray(picture), (90, 60)
    expected = (
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        if inside
        else np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
    )
    np.testing.assert_array_equal(images.resize(pixels, size), expected)


@pytest.mark.parametrize(
    "name", ["lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area", "box"]
)
def test_every_named_filter_works(name: str) -> None:
    assert images.resize(np.asarray(noise_picture((30, 20))), (15, 40), name).shape == (40, 15, 3)


def test_fit_cuts_the_bucket_out_of_the_middle() -> None:
    pixels = np.asarray(noise_picture((100, 64)))
    geometry = assign((100, 64), BucketRules((64, 64)))
    np.testing.assert_array_equal(images.fit(pixels, geometry), pixels[:, 18:82])


def test_a_mask_is_cut_like_its_picture() -> None:
    mask = np.zeros((64, 100), np.uint8)
    mask[:, 18:50] = 255
    geometry = Geometry((200, 128), (200, 128), (128, 128), (36, 0))
    fitted = images.fit_mask(mask, geometry)
    assert fitted.shape == (128, 128)
    assert fitted[:, 2:60].min() == 255 and fitted[:, 70:].max() == 0


def wide_profile() -> bytes:
    """A display profile with the primaries of P3 (D50 adapted) and a gamma of 2.2."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(int(v * 65536).to_bytes(4, "big", signed=True) for v in values)

    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + int(2.2 * 256).to_bytes(2, "big") + b"\0\0"
    tags = {
        b"wtpt": xyz(0.9642, 1.0, 0.8249), b"rXYZ": xyz(0.5151, 0.2412, -0.0011), b"gXYZ": xyz(0.2920, 0.6922, 0.0419),
        b"bXYZ": xyz(0.1571, 0.0666, 0.7841), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    return profile(b"mntrRGB XYZ ", tags)


def profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile; ``kind``: class, colours and colours that it leads to."""
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + (place + len(data)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        data += value
    body = len(tags).to_bytes(4, "big") + table + data
    head = (128 + len(body)).to_bytes(4, "big") + b"\0\0\0\0\x02\x10\0\0" + kind + bytes(12) + b"acsp"
    head += bytes(28) + b"".join(int(v * 65536).to_bytes(4, "big") for v in (0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0") + body


def press_profile() -> bytes:
    """A press whose cyan prints as a middle grey (L* 50), all else on paper as black."""
    same = bytes(range(256))
    matrix = b"".join(int(v * 65536).to_bytes(4, "big") for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    lightness = [100, *[0] * 7, 50, *[0] * 7]  # cyan varies slowest: 0000 is paper, 1000 is cyan alone
    nodes = b"".join(bytes([round(level * 2.55), 128, 128]) for level in lightness)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + same * 4 + nodes + same * 3
    return profile(b"prtrCMYKLab ", {b"A2B0": lut})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_wide_colours_become_srgb(kind: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 60))
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    red, green, blue = images.decode(stored(image, kind, icc_profile=wide_profile(), **options))[8, 8].astype(
        int
    )
    # The same numbers mean stronger colours in the wide space.
    assert red > 207 and green < 100 and blue < 55
    grey = Image.new("RGB", (16, 16), (128, 128, 128))
    assert np.ptp(images.decode(stored(grey, "PNG", icc_profile=wide_profile()))[8, 8].astype(int)) <= 2
    assert images.check(stored(image, "PNG", icc_profile=wide_profile())).sound_profile
    assert not images.check(stored(image, "PNG", icc_profile=b"no profile" * 600)).sound_profile


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_other_kinds_stand_upright_too(kind: str, orientation: int) -> None:
    stored_size = (24, 16)
    marked = Image.new("RGB", stored_size, (0, 0, 0))
    marked.paste((255, 255, 255), (0, 0, 8, 8))  # white in the stored picture's upper left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind == "AVIF" else {}
    pixels = images.decode(stored(marked, kind, exif=exif, **options))
    assert pixels.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))
    corner = {1: (2, 2), 3: (-3, -3), 6: (2, -3), 8: (-3, 2)}[orientation]
    assert pixels[corner].min() > 200
    assert pixels.mean() < 80
