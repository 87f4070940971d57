"""Train a model with DreamBooth, with the options of sd-scripts' script of the same name.

python tools/train_db.py --pretrained_model_name_or_path=M --train_data_dir=T --output_dir=O ...

The whole model learns a subject from a few pictures. What kind of model it is is read from its file.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    return train_from_line(sys.argv[1:], "train_db.py", (), "dreambooth")


if __name__ == "__main__":
    sys.exit(run_main(main))
