"""Clean captions and tags by rules: in a metadata file, or beside pictures.

    python tools/clean_captions_and_tags.py meta_cap_dd.json meta_clean.json
    python tools/clean_captions_and_tags.py --train_data_dir FOLDER --caption_extension .txt
    python tools/clean_captions_and_tags.py --write_rules rules.json         the rules, to edit
    python tools/clean_captions_and_tags.py --rules rules.json --debug meta_cap_dd.json meta_clean.json

IN_JSON is never written over unless --overwrite says so; what stood under OUT_JSON is kept beside it. Texts
beside pictures are as they were after --undo.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.annotate import cleancommand

    return cleancommand.main(__doc__)


if __name__ == "__main__":
    sys.exit(run_main(main))
