"""Take the tags beside pictures into a metadata file for fine-tuning.

    python tools/merge_dd_tags_to_metadata.py --full_path FOLDER --in_json meta_cap.json meta_cap_dd.json

Without --in_json, an OUT_JSON that exists is what the tags are added to. What stood there is kept beside it
under another name.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.annotate import merging

    return merging.main(__doc__, "tags", ".txt")


if __name__ == "__main__":
    sys.exit(run_main(main))
