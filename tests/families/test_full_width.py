"""The real size: 1.07 billion weights. About a minute; last run in November 2026."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

MEASURE = """
import json, resource, sys, time, torch
from backend import families
dtype = getattr(torch, sys.argv[2])
start = time.process_time()
model = families.load(sys.argv[1], dtype=dtype)
seconds = time.process_time() - start
modules = [adapter for adapter in model.adapter_modules() if adapter.container in ("text", "attention")]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "modules": len(modules)}))
"""


@pytest.fixture(scope="module")
def full_width(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "sd15.safetensors"
    subprocess.run([sys.executable, root / "tools" / "make_random_sd15.py", path], cwd=root, check=True)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="measures memory by the resource module")
@pytest.mark.parametrize(("dtype", "bytes_each"), [("float16", 2), ("float32", 4)])
def test_loading_needs_about_the_memory_of_the_result(
    root: Path, full_width: Path, dtype: str, bytes_each: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, full_width, dtype],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    weights = full_width.stat().st_size / 2 * bytes_each
    assert found["modules"] == 264
    assert found["peak"] < weights * 1.05 + 300e6, "300 MB are torch itself"
    if dtype == "float16":
        assert found["seconds"] < 5, "the weights stay in the mapped file"


@pytest.fixture(scope="module")
def full_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full-width SDXL of zeros: a header and a hole of 6.9 GB, which takes no room on most disks."""
    from backend.families.sdxl import layout

    shapes = layout.original_shapes(layout.FULL_UNET, layout.FULL_TEXT, layout.FULL_TEXT_2, layout.FULL_VAE)
    return of_zeros(tmp_path_factory.mktemp("full") / "sdxl.safetensors", shapes)


def of_zeros(path: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """A file of fp16 zeros: a header and a hole."""
    table: dict[str, object] = {}
    end = 0
    for name, shape in sorted(shapes.items()):
        start, end = end, end + math.prod(shape) * 2
        table[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(table).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="measures memory by the resource module")
def test_loading_sdxl_needs_about_the_memory_of_its_file(root: Path, full_sdxl: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, full_sdxl, "float16"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["modules"] == 986
    assert found["peak"] < full_sdxl.stat().st_size * 1.15
    full_sdxl.unlink()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="measures memory by the resource module")
def test_loading_sd3_needs_about_the_memory_of_its_file(root: Path, tmp_path: Path) -> None:
    """SD 3.5 medium without T5: 6.2 GB."""
    from backend.families.sd3 import layout

    shapes = layout.original_shapes(replace(layout.published("5-medium"), t5xxl=None))
    path = of_zeros(tmp_path / "sd3.safetensors", shapes)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path, "float16"], cwd=root, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["modules"] == 264 + 263
    assert found["peak"] < path.stat().st_size * 1.15
    path.unlink()
