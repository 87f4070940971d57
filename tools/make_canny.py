"""Make the outlines of a folder's pictures, white on black, as guide pictures for a ControlNet-LLLite.

python tools/make_canny.py PICTURES OUTLINES
python tools/make_canny.py --low_threshold 50 --high_threshold 150 PICTURES OUTLINES
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", type=Path, help="folder of pictures, or of folders such as '10_dog'")
    parser.add_argument("outlines", type=Path, help="folder to write PNG files of the same names into")
    parser.add_argument("--low_threshold", type=int, default=100, help="weaker edges do not count (100)")
    parser.add_argument("--high_threshold", type=int, default=200, help="stronger edges always count (200)")
    parser.add_argument("--overwrite", action="store_true", help="make files anew that are there already")
    return parser.parse_args()


def main() -> int:
    from backend.data.canny import outline_folder

    chosen = _options()
    if not 0 <= chosen.low_threshold <= chosen.high_threshold:
        raise InputError(
            f"low_threshold {chosen.low_threshold} and high_threshold {chosen.high_threshold} do not fit",
            next="give two numbers of 0 or more, the low one first",
        )
    done = outline_folder(
        chosen.pictures, chosen.outlines, low=chosen.low_threshold, high=chosen.high_threshold,
        overwrite=chosen.overwrite,
        progress=lambda number, count: print(f"\r{number}/{count} pictures", end="", flush=True),
    )  # fmt: skip
    print()
    for name, why in done.failed.items():
        print(f"{name}: {why}", file=sys.stderr)
    kept = f", {len(done.kept)} were there already" if done.kept else ""
    print(f"{len(done.written)} outlines written to {chosen.outlines}{kept}")
    return 4 if done.failed else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
