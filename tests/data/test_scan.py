"""Planted files of every kind: what is found, what is refused, in which words."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.data.headers import read_header
from backend.errors import InputError
from tests.data.data_kit import add_picture, noise_picture, notes_of, plan_of


def cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def refused(folder: Path, **values: object) -> str:
    with pytest.raises(InputError) as caught:
        plan_of(folder, **values)
    assert caught.value.exit_code == 2
    return caught.value.text()


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "webp", "bmp", "gif", "tif", "tiff", "avif", "jfif", "PNG", "Jpeg"]
)
def test_every_kind_is_found_and_measured(tmp_path: Path, ending: str) -> None:
    add_picture(tmp_path / "set", f"a.{ending}", (97, 64))
    (picture,) = plan_of(tmp_path / "set").datasets[0].pictures
    assert picture.geometry.original == (97, 64)
    assert picture.caption == "a, b"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif"])
def test_a_cut_off_picture_is_named(pictures: Callable[..., Path], ending: str) -> None:
    folder = pictures()
    cut(add_picture(folder, f"img_07.{ending}"))
    text = refused(folder)
    assert f"img_07.{ending} is cut off" in text
    assert "img_00" not in text
    assert "skip_broken_images" in text


def test_all_bad_files_are_listed_at_once(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (folder / "words.png").write_text("these are only words, nothing else at all")
    (folder / "inner.png").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    cut(add_picture(folder, "img_07.png"))
    text = refused(folder)
    assert "empty.png is empty (0 bytes)" in text
    assert "page.jpg is not an image (looks like HTML)" in text
    assert "words.png is not an image (looks like text)" in text
    assert "inner.png is a HEIC inside" in text
    assert "img_07.png is cut off (pixel data ends early)" in text


def test_bad_files_can_be_left_out(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=3)
    (folder / "empty.png").write_bytes(b"")
    cut(add_picture(folder, "img_07.png"))
    plan = plan_of(folder, skip_broken_images=True)
    assert plan.image_count == 3
    assert "2 pictures left out" in notes_of(plan)
    assert "empty.png" in notes_of(plan) and "img_07.png" in notes_of(plan)


def test_checking_once_is_enough_until_a_file_changes(
    pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures()
    plan_of(folder)
    from backend.data import images

    checked: list[bytes] = []
    check = images.check
    monkeypatch.setattr(images, "check", lambda data: (checked.append(data), check(data))[1])
    plan_of(folder)
    assert checked == []
    add_picture(folder, "img_00.png", (80, 80))
    plan_of(folder)
    assert len(checked) == 1


def test_damage_after_a_check_is_found(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    plan_of(folder)
    cut(folder / "img_01.png")
    assert "img_01.png is cut off" in refused(folder)


def test_an_unreadable_file_is_listed(pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures()
    from backend.data import index

    def denied(path: Path) -> object:
        if path.name == "img_02.png":
            raise PermissionError(13, "Permission denied")
        return read_header(path)

    monkeypatch.setattr(index, "read_header", denied)
    assert "img_02.png cannot be read (permission denied)" in refused(folder)


def test_a_wrong_ending_is_read_by_content(tmp_path: Path) -> None:
    add_picture(tmp_path / "set", "a.png")
    (tmp_path / "set" / "a.png").rename(tmp_path / "set" / "a.jpg")
    plan = plan_of(tmp_path / "set")
    assert plan.image_count == 1
    assert "named as another kind" in notes_of(plan) and "a.jpg" in notes_of(plan)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff", "avif"])
def test_sizes_are_those_of_the_upright_picture(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    noise_picture((40, 24)).save(path, exif=exif)
    assert read_header(path).size == ((24, 40) if orientation >= 5 else (40, 24))


def test_animations_use_their_first_frame_and_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    frames = [noise_picture((64, 64), seed) for seed in range(3)]
    for name in ("a.webp", "b.png", "c.gif", "d.tif", "e.avif"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], lossless=True)
    plan = plan_of(folder, class_tokens="sks")
    assert plan.image_count == 5
    assert "c.gif is an animation (3 frames)" in notes_of(plan)
    assert "d.tif has 3 pages" in notes_of(plan)
    assert "e.avif is an animation (3 frames)" in notes_of(plan)
    assert "a.webp is an animation (3 frames)" in notes_of(plan)
    assert "b.png is an animation (3 frames)" in notes_of(plan)
    assert notes_of(plan).count("Take it out of the folder if that frame should not be learnt") == 5


def test_transparent_pictures_are_told_unless_they_are_masks(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    clear.paste((0, 90, 0, 255), (8, 8, 40, 40))
    clear.save(folder / "a.png")
    clear.save(folder / "b.png", icc_profile=b"no profile" * 600)
    Image.new("RGBA", (64, 64), (200, 0, 0, 255)).save(folder / "solid.png")
    for _ in range(2):  # the second time nothing is decoded
        notes = notes_of(plan_of(folder, class_tokens="x"))
        assert "2 pictures are partly transparent and put on white: a.png, b.png" in notes
        assert "alpha_mask" in notes and "broken colour profile, so the colours count as sRGB: b.png" in notes
    as_masks = plan_of(folder, class_tokens="x", alpha_mask=True, masked_loss=True)
    assert "partly transparent" not in notes_of(as_masks)


def test_unsupported_kinds_are_counted(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    for name in ("d.heic", "e.jxl", "f.PSD"):
        (folder / name).write_bytes(b"x")
    notes = notes_of(plan_of(folder))
    assert "3 pictures of a kind that is not supported; not used: d.heic, e.jxl, f.PSD" in notes
    assert "Save them as PNG, JPEG or WebP" in notes


def test_a_tiny_picture_is_left_out(pictures: Callable[..., Path]) -> None:
    folder = pictures(size=(600, 400))
    add_picture(folder, "dot.png", (1, 1))
    plan = plan_of(folder, enable_bucket=True, resolution="512")
    assert plan.image_count == 4
    assert "dot.png is left out: 1x1 px, smaller than 256" in notes_of(plan)


def test_a_small_picture_is_enlarged_and_named(pictures: Callable[..., Path]) -> None:
    folder = pictures(size=(300, 300))
    plan = plan_of(folder, resolution="1024")
    assert plan.image_count == 4
    notes = notes_of(plan)
    assert "4 pictures smaller than the training size; enlarged: img_00.png, img_01.png" in notes
    assert "bucket_no_upscale" in notes and "--fix upscaled" in notes, "the choice"
    kept = plan_of(folder, resolution="1024", enable_bucket=True, bucket_no_upscale=True, min_bucket_reso=64)
    assert "enlarged" not in notes_of(kept)
    assert all(picture.geometry.bucket == (256, 256) for picture in kept.datasets[0].pictures)


@pytest.mark.parametrize("size", [(1, 1), (63, 20), (64, 63)])
def test_a_picture_below_the_bucket_step_makes_no_bucket_of_size_zero(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "good.png", (600, 600))
    add_picture(folder, "dot.png", size)
    options = {"enable_bucket": True, "bucket_no_upscale": True, "min_bucket_reso": 64, "resolution": "512"}
    plan = plan_of(folder, **options)
    assert all(min(bucket) >= 64 for bucket in plan.datasets[0].buckets())
    used = {picture.path.name for picture in plan.datasets[0].pictures}
    assert "dot.png" in used or f"dot.png is left out: {size[0]}x{size[1]} px" in notes_of(plan)


def test_a_bomb_is_refused_by_its_header(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    chunk = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + chunk
    (folder / "bomb.png").write_bytes(head + struct.pack(">I", zlib.crc32(b"IHDR" + chunk)) + bytes(100))
    assert "bomb.png has 900 megapixels; limit 200" in refused(folder)


def test_nothing_is_written_into_the_folder(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    before = {p: p.stat().st_mtime_ns for p in [folder, *folder.iterdir()]}
    plan_of(folder)
    assert {p: p.stat().st_mtime_ns for p in [folder, *folder.iterdir()]} == before


@pytest.mark.parametrize("name", ["with space", "ü", "日本語", "😀", "[b]", "50%", "a&b", "it's", "#1"])
def test_any_name_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / f"10_{name}"
    add_picture(folder, f"{name}.png")
    (picture,) = plan_of(tmp_path / name).datasets[0].pictures
    assert picture.repeats == 10
    assert picture.subset.class_tokens == name
    assert picture.caption == "a, b"


def test_names_with_two_dots_have_captions_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("a.b", "a.c"):
        add_picture(folder, f"{name}.png", caption=None)
        (folder / f"{name}.txt").write_text(name)
    assert [p.caption for p in plan_of(folder).datasets[0].pictures] == ["a.b", "a.c"]


def test_two_pictures_with_one_caption_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png")
    add_picture(folder, "a.jpg", caption=None)
    notes = notes_of(plan_of(folder))
    assert "a.jpg, a.png share one caption file" in notes and "Rename one of them" in notes


def test_a_second_caption_that_is_not_read_is_told(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    assert "not read" not in notes_of(plan_of(folder))
    (folder / "img_01.caption").write_text("of a captioner")
    plan = plan_of(folder, caption_extension=".caption")
    assert [p.caption for p in plan.datasets[0].pictures] == ["a, b", "of a captioner", "a, b", "a, b"]
    assert "1 caption is not read, for the picture has one of another ending too: img_01.txt" in notes_of(
        plan
    )
    assert "another ending too: img_01.caption" in notes_of(plan_of(folder, caption_extension=".txt"))


def test_missing_captions_are_named(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=8)
    for name in ("a.png", "b.png"):
        add_picture(folder, name, caption=None)
    plan = plan_of(folder, class_tokens="sks dog")
    assert "8 of 10 have captions: a.png, b.png have none" in notes_of(plan)
    assert {p.caption for p in plan.datasets[0].pictures} == {"a, b", "sks dog"}


def test_no_caption_and_no_words_is_refused(pictures: Callable[..., Path]) -> None:
    folder = pictures(caption=None)
    text = refused(folder)
    assert "None of 4 pictures has a caption" in text
    assert "class_tokens" in text


def test_other_ending_empty_and_many_lines_are_told(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=3)
    (folder / "img_00.txt").write_text("")
    (folder / "img_01.txt").write_text("one\ntwo\nthree\n")
    (folder / "img_02.txt").rename(folder / "img_02.caption")
    plan = plan_of(folder)
    notes = notes_of(plan)
    assert "1 caption is empty: img_00.txt" in notes
    assert "1 caption has several lines, the first is used: img_01.txt" in notes
    assert "1 caption has another ending than .txt: img_02.caption" in notes
    assert [p.caption for p in plan.datasets[0].pictures] == ["", "one", "a, b"]


def test_captions_that_all_have_another_ending_are_no_news(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=2)
    for path in folder.glob("*.txt"):
        path.rename(path.with_suffix(".caption"))
    assert "another ending" not in notes_of(plan_of(folder))
    (folder / "img_01.caption").unlink()
    assert "1 caption has another ending than .txt: img_00.caption" in notes_of(
        plan_of(folder, class_tokens="a ball")
    )


def test_a_caption_that_may_not_be_read_stops_with_its_name_and_what_helps(
    pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures()
    opened = open

    def denied(path: object, *args: Any, **options: Any) -> Any:
        if str(path).endswith("img_01.txt"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", denied)
    text = refused(folder)
    assert "img_01.txt cannot be read (permission denied)" in text and "Allow reading it" in text
    assert "UTF-8" not in text


def test_a_caption_that_is_not_utf8_stops_with_its_name(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    (folder / "img_01.txt").write_bytes("赤い花".encode("cp932"))
    text = refused(folder)
    assert "img_01.txt is not UTF-8 (looks like Shift-JIS, line 1)" in text


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root can write anywhere")
def test_a_read_only_folder_works(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    folder.chmod(0o555)
    try:
        assert plan_of(folder).image_count == 4
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("ending", ["tif", "avif"])
def test_cut_off_files_of_other_kinds_are_broken(pictures: Callable[..., Path], ending: str) -> None:
    folder = pictures()
    cut(add_picture(folder, f"img_07.{ending}"))
    assert f"img_07.{ending} is" in refused(folder)


def test_the_worst_cuts_are_named_and_the_hopeless_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "wide.png", (300, 100))
    add_picture(folder, "wider.png", (400, 100))
    add_picture(folder, "strip.png", (2000, 40))
    add_picture(folder, "good.png", (100, 100))
    plan = plan_of(folder)
    assert [p.path.name for p in plan.datasets[0].pictures] == ["good.png", "wide.png", "wider.png"]
    notes = notes_of(plan)
    assert "wider.png (75%), wide.png (67%)" in notes
    assert "strip.png is left out: 2000x40 px, of which 98% would be cut" in notes
    assert "wide.png (" not in notes_of(
        plan_of(folder, enable_bucket=True, min_bucket_reso=32, resolution="128")
    )


def test_a_broken_colour_profile_is_told_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    noise_picture((64, 64)).save(folder / "a.png", icc_profile=b"no profile" * 600)
    for _ in range(2):
        assert "1 picture has a broken colour profile, so the colours count as sRGB: a.png" in notes_of(
            plan_of(folder, class_tokens="x")
        )


def test_names_that_look_alike_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("caf\u00e9.png", "cafe\u0301.png"):
        add_picture(folder, name)
    if len(list(folder.glob("*.png"))) == 2:  # some file systems take them for one name
        assert "2 names look like" in notes_of(plan_of(folder))


def test_a_loop_of_links_and_a_link_to_nowhere(pictures: Callable[..., Path]) -> None:
    folder = pictures()
    try:
        (folder / "round").symlink_to(folder, target_is_directory=True)
        (folder / "gone.png").symlink_to(folder / "nothing.png")
        for name in ("circle.png", "circle", "circle.heic"):
            (folder / name).symlink_to(folder / name)
    except OSError:
        pytest.skip("links cannot be made here")
    said = refused(folder)
    assert "gone.png cannot be read" in said and "circle.png cannot be read" in said
    (folder / "gone.png").unlink()
    (folder / "circle.png").unlink()
    assert plan_of(folder).image_count == 4


def test_a_blank_around_a_path_does_not_matter(pictures: Callable[..., Path]) -> None:
    assert plan_of(Path(f"  {pictures()} ")).image_count == 4
