from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.data import canny
from backend.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def draw(path: Path, size: tuple[int, int] = (60, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, (20, 20, 20))
    ImageDraw.Draw(picture).rectangle((10, 10, 30, 25), fill=(230, 220, 200))
    picture.save(path)


def test_outlines_are_where_colours_change_and_nowhere_else():
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[10:26, 10:31] = 230
    found = canny.outlines(pixels)
    assert found.shape == pixels.shape and set(np.unique(found)) == {0, 255}
    assert not found[14:22, 14:27].any() and not found[:7].any() and not found[:, 40:].any()
    assert found[8:13, 15:25].any() and found[14:22, 8:13].any()
    assert not canny.outlines((pixels > 0).astype(np.uint8) * 20).any()
    assert canny.outlines((pixels > 0).astype(np.uint8) * 20, low=5, high=10).any()


def test_a_folder_and_its_numbered_folders_keep_their_names(tmp_path):
    draw(tmp_path / "pictures" / "a.jpg", (60, 40))
    draw(tmp_path / "pictures" / "10_dog" / "b.webp", (40, 50))
    target = tmp_path / "lines"
    done = canny.outline_folder(tmp_path / "pictures", target)
    assert sorted(done.written) == [target / "10_dog" / "b.png", target / "a.png"]
    assert Image.open(target / "10_dog" / "b.png").size == (40, 50)
    again = canny.outline_folder(tmp_path / "pictures", target)
    assert not again.written and len(again.kept) == 2
    assert len(canny.outline_folder(tmp_path / "pictures", target, overwrite=True).written) == 2


def test_what_cannot_be_is_refused_and_what_cannot_be_read_is_told(tmp_path):
    pictures = tmp_path / "pictures"
    draw(pictures / "a.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    done = canny.outline_folder(pictures, tmp_path / "lines")
    assert list(done.failed) == ["broken.png"] and len(done.written) == 1
    draw(pictures / "a.jpg")
    with pytest.raises(InputError, match="same name: a"):
        canny.outline_folder(pictures, tmp_path / "lines")
    with pytest.raises(InputError, match="beside their pictures"):
        canny.outline_folder(pictures, pictures)
    with pytest.raises(InputError, match="not found"):
        canny.outline_folder(tmp_path / "none", tmp_path / "lines")


def test_the_command_line_tells_what_it_did(tmp_path):
    draw(tmp_path / "pictures" / "a.png")
    line = [sys.executable, "tools/make_canny.py", str(tmp_path / "pictures"), str(tmp_path / "lines")]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert "1 outlines written" in found.stdout and (tmp_path / "lines" / "a.png").is_file()
    wrong = subprocess.run(
        [*line, "--low_threshold", "300"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert wrong.returncode == 2 and "do not fit" in wrong.stderr
