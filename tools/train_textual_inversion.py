"""Teach a model a word (textual inversion), with the options of sd-scripts' script of the same name.

python tools/train_textual_inversion.py --config_file run.toml --token_string mycat --init_word cat
accelerate launch tools/train_textual_inversion.py --pretrained_model_name_or_path=...
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    families = ("sd1", "sd2")
    return train_from_line(sys.argv[1:], "train_textual_inversion.py", families, "textual_inversion")


if __name__ == "__main__":
    sys.exit(run_main(main))
