"""Train a ControlNet-LLLite for SDXL, with the options of sd-scripts' script of the same name.

python tools/sdxl_train_control_net_lllite.py --config_file run.toml --dataset_config pictures.toml
accelerate launch tools/sdxl_train_control_net_lllite.py --config_file run.toml
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    return train_from_line(sys.argv[1:], "sdxl_train_control_net_lllite.py", ("sdxl",), "lllite")


if __name__ == "__main__":
    sys.exit(run_main(main))
