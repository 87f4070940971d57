"""Measures the dataset engine and prints one line of JSON.

    python tools/bench_data.py [--pictures 50000] [--latents 2000] [--folder DIR]

Makes small pictures with captions, and measures: the first look at them (sizes, captions, buckets),
the second one, which reads the index, and reading the sizes one by one with Pillow. Then it fills a
latent cache on disk and measures how many latents a second are read from it. Everything it makes
lies below one temporary folder (inside --folder, when given) and is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main

SIDES = ((64, 64), (96, 64), (64, 96), (128, 72))
Made = TypeVar("Made")


def make_pictures(folder: Path, count: int) -> None:
    """Grey PNGs of a few shapes, each with a caption of ten tags."""
    folder.mkdir(parents=True)
    plain = [_png(*size) for size in SIDES]
    for i in range(count):
        (folder / f"{i:06d}.png").write_bytes(plain[i % len(plain)])
        (folder / f"{i:06d}.txt").write_text(", ".join(f"tag {(i * 7 + k) % 500}" for k in range(10)))


def _png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\x00" + bytes([128]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(rows)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    start = time.perf_counter()
    made = work()
    return made, round(time.perf_counter() - start, 3)


def measure_scans(folder: Path) -> dict[str, Any]:
    """Seconds of the first and the second look, and of Pillow one by one."""
    from PIL import Image

    from backend.data.facts import FileFacts
    from backend.data.plan import build_plan
    from backend.settings import Settings

    values = {"train_data_dir": str(folder), "resolution": "64", "enable_bucket": True, "min_bucket_reso": 32}
    settings = Settings.from_flat({**values, "caption_extension": ".txt"})

    def plan(verify: bool = False) -> int:
        facts = FileFacts(folder.parent / "facts.tsv")
        return build_plan(settings, verify=verify, facts=facts).image_count

    def pillow() -> int:
        count = 0
        for path in folder.glob("*.png"):
            with Image.open(path) as image:
                count += image.size[0] > 0
        return count

    found, first = timed(plan)
    _, second = timed(plan)
    _, decoded = timed(lambda: plan(verify=True))
    _, decoded_again = timed(lambda: plan(verify=True))
    _, one_by_one = timed(pillow)
    return {
        "pictures": found,
        "first_seconds": first,
        "second_seconds": second,
        "first_with_decoding_seconds": decoded,
        "second_with_decoding_seconds": decoded_again,
        "pillow_sizes_seconds": one_by_one,
        "memory_mb": _memory(),
    }


def measure_latents(folder: Path, count: int, side: int = 512) -> dict[str, Any]:
    """Latents a second that are written, found sound, and read in a training's order."""
    import torch

    from backend.data.store import FolderStore

    shape = (4, side // 8, side // 8)
    store = FolderStore(folder)

    def write() -> None:
        for start in range(0, count, 64):
            numbers = range(start, min(start + 64, count))
            store.put({f"{n:06d}": {"latents": torch.full(shape, float(n))} for n in numbers})

    _, writing = timed(write)
    merged, merging = timed(store.compact)
    fresh, opening = timed(lambda: FolderStore(folder))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    sound, reading = timed(lambda: sum(fresh.get(f"{n:06d}") is not None for n in order))
    assert sound == count, "a latent that was written cannot be read"
    return {
        "latents": count, "shape": list(shape), "written_per_second": round(count / writing),
        "read_per_second": round(count / reading), "packs_merged": merged, "merge_seconds": merging,
        "open_seconds": opening,
    }  # fmt: skip


def _memory() -> int:
    import psutil

    return psutil.Process().memory_info().rss >> 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--latents", type=int, default=4_000)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atelier-bench-", dir=args.folder) as name:
        home = Path(name)
        os.environ["ATELIER_HOME"] = str(home)
        _, making = timed(lambda: make_pictures(home / "pictures", args.pictures))
        result = {
            "making_seconds": making,
            **measure_scans(home / "pictures"),
            **measure_latents(home / "store", args.latents),
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
