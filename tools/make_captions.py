"""Write captions for pictures with BLIP or another captioner: a .caption file beside each picture.

    python tools/make_captions.py --batch_size 8 FOLDER
    python tools/make_captions.py --caption_weights florence-community/Florence-2-base --beam_search FOLDER
    python tools/make_captions.py --caption_weights bundled FOLDER        the small one, of the demo's world
    python tools/make_captions.py --undo FOLDER                              takes the last run back

--caption_weights takes a folder or a name on the hub: BLIP, BLIP-2, GIT, Florence-2, or a model that can be
asked (--prompt). Pictures that have text keep it, unless --existing says append or replace. Exit code: 4
when some pictures failed, which are listed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.annotate import command
    from backend.annotate.settings import CaptioningSettings

    return command.caption(command.parser(__doc__, CaptioningSettings).parse_args())


if __name__ == "__main__":
    sys.exit(run_main(main))
