"""Fine-tune a model, with the options of sd-scripts' script of the same name.

python tools/fine_tune.py --pretrained_model_name_or_path=M --train_data_dir=T --in_json=meta.json ...

What kind of model it is is read from its file.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    return train_from_line(sys.argv[1:], "fine_tune.py", (), "finetune")


if __name__ == "__main__":
    sys.exit(run_main(main))
