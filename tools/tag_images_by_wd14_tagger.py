"""Tag pictures with a WD14 tagger: a .txt file beside each picture.

    python tools/tag_images_by_wd14_tagger.py --repo_id SmilingWolf/wd-swinv2-tagger-v3 FOLDER
    python tools/tag_images_by_wd14_tagger.py --repo_id bundled FOLDER   the small one, of the demo's world
    python tools/tag_images_by_wd14_tagger.py --undo FOLDER                  takes the last run back

Pictures that have text keep it, unless --existing says append or replace. A tagger that is not here is
downloaded into --model_dir. Exit code: 4 when some pictures failed, which are listed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.annotate import command
    from backend.annotate.settings import TaggingSettings

    return command.tag(command.parser(__doc__, TaggingSettings).parse_args())


if __name__ == "__main__":
    sys.exit(run_main(main))
