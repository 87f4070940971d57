"""Teach a model a word that each layer of its U-Net reads in its own way (XTI, P+), with the options of
sd-scripts' script of the same name.

python tools/train_textual_inversion_XTI.py --config_file run.toml --token_string mycat --init_word cat
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    line = [*sys.argv[1:], *([] if any(word.startswith("--xti") for word in sys.argv) else ["--xti"])]
    return train_from_line(line, "train_textual_inversion_XTI.py", ("sd1", "sd2"), "textual_inversion")


if __name__ == "__main__":
    sys.exit(run_main(main))
