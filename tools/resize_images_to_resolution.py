"""Copy a folder and add smaller copies of its pictures, for training at several sizes.

python tools/resize_images_to_resolution.py --max_resolution 512x512,384x384 --save_as_png SRC DST

a.png becomes a.png and a+512x512.png: scaled to that area, never enlarged. The originals stay as
they are, and files that DST has already are not replaced.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.data.edit.resize import INTERPOLATIONS, ResizeRules, read_resolutions, resize_folder
    from backend.data.edit.terminal import ProgressLine

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src_img_folder", type=Path)
    parser.add_argument("dst_img_folder", type=Path)
    parser.add_argument(
        "--max_resolution",
        default="512x512,384x384,256x256,128x128",
        help="areas to shrink to, separated by commas [%(default)s]",
    )
    parser.add_argument(
        "--divisible_by", type=int, default=1, help="cut so that both sides are multiples of this"
    )
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, default="area", help="[%(default)s]")
    parser.add_argument("--save_as_png", action="store_true", help="PNG instead of JPEG at quality 100")
    parser.add_argument(
        "--copy_associated_files",
        action="store_true",
        help="copy captions and the like for each smaller copy",
    )
    options = parser.parse_args()
    rules = ResizeRules(
        read_resolutions(options.max_resolution),
        options.divisible_by,
        options.interpolation,
        options.save_as_png,
        options.copy_associated_files,
    )
    with ProgressLine("resizing", "pictures") as progress:
        report = resize_folder(options.src_img_folder, options.dst_img_folder, rules, progress)
    print(report.text())
    return 4 if report.failed else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
