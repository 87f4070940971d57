"""Train a LoRA for Stable Diffusion 3 or 3.5, with the options of sd-scripts' script of the same name.

python tools/sd3_train_network.py --pretrained_model_name_or_path=M --clip_l=L --clip_g=G --t5xxl=T ...

It does what train_network.py does, for models of this kind only.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.entry import train_from_line

    return train_from_line(sys.argv[1:], "sd3_train_network.py", ("sd3",))


if __name__ == "__main__":
    sys.exit(run_main(main))
