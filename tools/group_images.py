"""Copy pictures in groups of one shape each, so that every batch can be full.

python tools/group_images.py SRC DST 4 --include_subfolders

Pictures are sorted by shape; those of a group are cut from the centre (with --pad: set on white) to
their common shape. The originals stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.data.edit.group import GroupRules, group_images
    from backend.data.edit.terminal import ProgressLine

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("input_folder", type=Path)
    parser.add_argument("output_folder", type=Path)
    parser.add_argument("group_size", type=int, nargs="?", default=4, help="pictures a group [%(default)s]")
    parser.add_argument("--include_subfolders", action="store_true")
    parser.add_argument(
        "--do_not_copy_other_files", action="store_true", help="leave captions and the like out"
    )
    parser.add_argument("--pad", action="store_true", help="add a white border instead of cutting")
    parser.add_argument(
        "--caption", action="store_true", help="caption pictures that have none with the name of their folder"
    )
    parser.add_argument("--caption_ext", default=".txt", help="[%(default)s]")
    options = parser.parse_args()
    rules = GroupRules(
        options.group_size,
        options.include_subfolders,
        options.do_not_copy_other_files,
        options.pad,
        options.caption,
        options.caption_ext,
    )
    with ProgressLine("grouping") as progress:
        report = group_images(options.input_folder, options.output_folder, rules, progress)
    print(report.text())
    return 4 if report.failed else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
