"""Train a LoRA from the command line, with the options of sd-scripts' script of the same name.

python tools/train_network.py --config_file run.toml --learning_rate 2e-4
accelerate launch --num_cpu_threads_per_process 1 tools/train_network.py --pretrained_model_name_or_path=...
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    return train_from_line(sys.argv[1:], "train_network.py")


if __name__ == "__main__":
    sys.exit(run_main(main))
