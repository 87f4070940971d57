"""Folders of smaller copies, and groups of one shape."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.data.edit import GroupRules, ResizeRules, group_images, resize, resize_folder
from backend.errors import InputError, RunFault
from tests.data.data_kit import add_picture, noise_picture

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        ((1024, 1024), 512 * 512, (512, 512)),
        ((1000, 500), 512 * 512, (724, 362)),
        ((500, 1000), 512 * 512, (362, 724)),
        ((512, 512), 512 * 512, (512, 512)),
        ((300, 200), 512 * 512, (300, 200)),
        ((8000, 1), 100, (894, 1)),
    ],
)
def test_the_size_of_a_copy(size: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    assert resize.scaled_size(size, area) == expected


def test_originals_copies_and_their_captions(originals: Make, tmp_path: Path) -> None:
    source, target = originals(3), tmp_path / "out"
    rules = ResizeRules(((48, 48), (32, 32)), divisible_by=4, save_as_png=True, copy_associated_files=True)
    report = resize_folder(source, target, rules)
    assert report.done == 3 and not report.failed
    names = {path.name for path in target.iterdir()}
    stems = [f"img_0{i}{more}" for i in range(3) for more in ("", "+48x48", "+32x32")]
    assert names == {f"{stem}{ending}" for stem in stems for ending in (".png", ".txt")}
    for name in (path.name for path in source.iterdir()):
        assert (target / name).read_bytes() == (source / name).read_bytes()
        assert (target / name).stat().st_mtime_ns == (source / name).stat().st_mtime_ns
    for path in target.glob("*+*.png"):
        width, height = Image.open(path).size
        assert width % 4 == 0 == height % 4 and width * height <= 48 * 48
    assert Image.open(target / "img_00+48x48.png").size == (56, 36)
    assert "pictures/s" in report.text() and "3 of 3 pictures done, 18 files written" in report.text()


def test_jpeg_by_default_never_enlarged_upright(tmp_path: Path) -> None:
    source = tmp_path / "set"
    source.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_picture((96, 64)).save(source / "turned.jpg", exif=exif)
    noise_picture((20, 20)).save(source / "small.png")
    report = resize_folder(source, tmp_path / "out", ResizeRules(((48, 48),)))
    turned = Image.open(tmp_path / "out" / "turned+48x48.jpg")
    assert turned.format == "JPEG" and turned.size[0] < turned.size[1]
    assert Image.open(tmp_path / "out" / "small+48x48.jpg").size == (20, 20)
    assert any("nothing is enlarged" in note for note in report.notes)


def test_area_is_the_mean_of_what_is_shrunk(tmp_path: Path) -> None:
    picture = add_picture(tmp_path / "set", "a.png", (64, 64), caption=None)
    resize_folder(tmp_path / "set", tmp_path / "out", ResizeRules(((32, 32),), save_as_png=True))
    pixels = np.asarray(Image.open(picture)).astype(float)
    means = pixels.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    shrunk = np.asarray(Image.open(tmp_path / "out" / "a+32x32.png")).astype(float)
    assert abs(shrunk - means).max() <= 1


@pytest.mark.parametrize("interpolation", resize.INTERPOLATIONS)
def test_every_interpolation_works(tmp_path: Path, interpolation: str) -> None:
    add_picture(tmp_path / "set", "a.png", (64, 48), caption=None)
    rules = ResizeRules(((32, 32),), interpolation=interpolation, save_as_png=True)
    assert resize_folder(tmp_path / "set", tmp_path / "out", rules).done == 1
    assert Image.open(tmp_path / "out" / "a+32x32.png").size == (36, 27)


def test_one_broken_picture_stops_nothing_and_is_named(originals: Make, tmp_path: Path) -> None:
    source = tmp_path / "set"
    add_picture(source, "good.png")
    (source / "bad.png").write_bytes((source / "good.png").read_bytes()[:300])
    report = resize_folder(source, tmp_path / "out", ResizeRules(((32, 32),)))
    assert report.done == 1 and report.failed == (("bad.png", "is cut off (pixel data ends early)"),)
    assert "failed: bad.png is cut off" in report.text()


def test_what_is_there_stays_and_a_second_run_does_nothing(originals: Make, tmp_path: Path) -> None:
    source, target = originals(2), tmp_path / "out"
    target.mkdir()
    (target / "img_00+32x32.jpg").write_bytes(b"mine")
    first = resize_folder(source, target, ResizeRules(((32, 32),)))
    assert (target / "img_00+32x32.jpg").read_bytes() == b"mine"
    assert any("1 file were there already" in note or "there already" in note for note in first.notes)
    second = resize_folder(source, target, ResizeRules(((32, 32),)))
    assert second.written == ()


def test_a_full_disk_ends_it_without_parts(
    originals: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, flush: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resize, "new_bytes", full)
    with pytest.raises(RunFault, match="no space left"):
        resize_folder(originals(2), tmp_path / "out", ResizeRules(((32, 32),)))
    assert not [path for path in (tmp_path / "out").iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: ResizeRules(divisible_by=0), "divisible_by: 0"),
        (lambda: ResizeRules(interpolation="magic"), "none of area"),
        (lambda: resize.read_resolutions("512"), "'512' is not a size"),
        (lambda: resize.read_resolutions(""), "names no size"),
        (lambda: ResizeRules(((4, 4),)), "too small"),
        (lambda: GroupRules(group_size=0), "outside 1 to 64"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(work: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        work()


def test_the_target_is_never_the_source(originals: Make) -> None:
    source = originals(1)
    with pytest.raises(InputError, match="where the originals are"):
        resize_folder(source, source)


def test_resolutions_are_read() -> None:
    assert resize.read_resolutions("512x512, 384X256,512x512") == ((512, 512), (384, 256))


@pytest.mark.parametrize("pad", [False, True])
def test_groups_have_one_shape_each(originals: Make, tmp_path: Path, pad: bool) -> None:
    source, target = originals(8), tmp_path / "out"
    report = group_images(source, target, GroupRules(3, pad=pad))
    assert report.done == 8 and not report.failed
    for number in (1, 2, 3):
        sizes = [Image.open(path).size for path in target.glob(f"group-{number}-image-*.png")]
        assert len(sizes) == (2 if number == 3 else 3)
        aspects = {width / height for width, height in sizes}
        assert max(aspects) / min(aspects) < 1.03
    assert len(list(target.glob("*.txt"))) == 8
    assert "the last group has 2 pictures" in report.text()


def test_a_padded_picture_keeps_all_of_it(tmp_path: Path) -> None:
    one = add_picture(tmp_path / "set", "a.png", (60, 40))
    add_picture(tmp_path / "set", "b.png", (40, 60))
    group_images(tmp_path / "set", tmp_path / "out", GroupRules(2, pad=True))
    wide = np.asarray(Image.open(next((tmp_path / "out").glob("*-a.png"))))
    assert wide.shape[:2] == (60, 60)
    assert (wide[10:50] == np.asarray(Image.open(one))).all() and wide[:10].min() == 255


def test_groups_take_folders_inside_and_caption_what_has_none(tmp_path: Path) -> None:
    add_picture(tmp_path / "set" / "3_red cat", "a.png", caption=None)
    add_picture(tmp_path / "set", "b.png", caption="mine")
    rules = GroupRules(2, include_subfolders=True, caption=True)
    group_images(tmp_path / "set", tmp_path / "out", rules)
    captions = sorted(path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.txt"))
    assert captions == ["mine", "red cat"]
    with pytest.raises(InputError, match="holds groups already"):
        group_images(tmp_path / "set", tmp_path / "out", rules)
