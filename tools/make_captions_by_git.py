"""Write captions for pictures with GIT: a .caption file beside each picture.

    python tools/make_captions_by_git.py --batch_size 4 --remove_words FOLDER
    python tools/make_captions_by_git.py --undo FOLDER                       takes the last run back

--model_id takes a folder or a name on the hub. It looks for the likeliest caption. Pictures that have text
keep it, unless --existing says append or replace. Exit code: 4 when some pictures failed, which are listed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main

LEFT_OUT = ("caption_weights", "beam_search", "top_p", "temperature", "seed", "min_length", "max_length")


def main() -> int:
    from backend.annotate import command
    from backend.annotate.settings import CaptioningSettings

    parser = command.parser(__doc__, CaptioningSettings, LEFT_OUT)
    parser.add_argument(
        "--model_id", default="microsoft/git-large-textcaps", help="folder or name on the hub [%(default)s]"
    )
    parser.add_argument("--max_length", type=int, default=50, help="longest caption in tokens [%(default)s]")
    arguments = parser.parse_args()
    values = vars(arguments)
    fixed = {"caption_weights": values.pop("model_id"), "beam_search": True, "min_length": 0}
    return command.caption(argparse.Namespace(**values), **fixed)


if __name__ == "__main__":
    sys.exit(run_main(main))
