"""Command lines that make folders out of folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.data.data_kit import add_picture
from tests.data_edit.conftest import facts_of


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, f"tools/{tool}", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i, size in enumerate(((96, 64), (64, 96), (80, 80))):
        add_picture(tmp_path / "src", f"{i}.png", size, caption=f"sks {i}")
    return tmp_path / "src"


def test_resize_as_people_call_it(source: Path, tmp_path: Path) -> None:
    before = facts_of(source)
    done = run(
        "resize_images_to_resolution.py", "--max_resolution", "48x48,32x32", "--divisible_by", "2",
        "--interpolation", "area", "--save_as_png", "--copy_associated_files", source, tmp_path / "dst",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "resizing: 3/3 pictures" in done.stdout and "3 of 3 pictures done, 18 files written" in done.stdout
    assert Image.open(tmp_path / "dst" / "2+48x48.png").size == (48, 48)
    assert (tmp_path / "dst" / "2+32x32.txt").read_text(encoding="utf-8") == "sks 2"
    assert facts_of(source) == before


def test_resize_ends_with_4_when_a_picture_failed_and_2_for_bad_input(source: Path, tmp_path: Path) -> None:
    (source / "bad.jpg").write_bytes(b"<html>")
    done = run("resize_images_to_resolution.py", source, tmp_path / "dst", "--max_resolution", "32x32")
    assert done.returncode == 4
    assert "3 of 4 pictures done" in done.stdout and "failed: bad.jpg is not an image" in done.stdout
    assert run("resize_images_to_resolution.py", tmp_path / "no", tmp_path / "dst").returncode == 2
    wrong = run("resize_images_to_resolution.py", source, tmp_path / "dst", "--max_resolution", "big")
    assert wrong.returncode == 2 and "'big' is not a size" in wrong.stderr
    assert run("resize_images_to_resolution.py", source, source).returncode == 2


def test_group(source: Path, tmp_path: Path) -> None:
    before = facts_of(source)
    done = run("group_images.py", source, tmp_path / "dst", 2)
    assert done.returncode == 0, done.stderr
    assert "2 groups of up to 2 pictures" in done.stdout and "3 of 3 pictures done" in done.stdout
    assert len(list((tmp_path / "dst").glob("group-*.png"))) == 3
    assert facts_of(source) == before
    assert run("group_images.py", source, tmp_path / "dst").returncode == 2


def test_dreambooth_folder(source: Path, tmp_path: Path) -> None:
    before = facts_of(source)
    add_picture(tmp_path / "reg", "r.png", caption=None)
    done = run(
        "make_dreambooth_folder.py", source, tmp_path / "dst", "--instance_prompt", "sks", "--class_prompt", "dog",
        "--repeats", 12, "--reg_pictures", tmp_path / "reg",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dst" / "img" / "12_sks dog" / "0.txt").is_file()
    assert (tmp_path / "dst" / "reg" / "1_dog" / "r.png").is_file()
    assert f"--train_data_dir {tmp_path / 'dst' / 'img'}" in done.stdout
    assert facts_of(source) == before


def test_dreambooth_folder_for_wanted_steps(source: Path, tmp_path: Path) -> None:
    done = run(
        "make_dreambooth_folder.py", source, tmp_path / "dst", "--instance_prompt", "sks", "--class_prompt", "dog",
        "--wanted_steps", 600, "--link",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "20 repeats, 10 epochs: 600 steps" in done.stdout
    assert (tmp_path / "dst" / "img" / "20_sks dog").is_dir()


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, runpy\nsys.argv = ['x', '--help']\n"
        "try:\n    runpy.run_path('tools/resize_images_to_resolution.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--copy_associated_files" in done.stdout, done.stderr
