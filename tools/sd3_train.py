"""Fine-tune an SD 3 model, with the options of sd-scripts' script of the same name.

python tools/sd3_train.py --pretrained_model_name_or_path=M --dataset_config=D.toml ...

It does what fine_tune.py does, for SD 3 base models alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    return train_from_line(sys.argv[1:], "sd3_train.py", ("sd3",), "finetune")


if __name__ == "__main__":
    sys.exit(run_main(main))
