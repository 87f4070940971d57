"""Encode the pictures of a dataset into the cache on disk, ahead of training.

python tools/cache_latents.py --pretrained_model_name_or_path M --dataset_config D.toml --mixed_precision bf16

Takes the training's options. Give those that the training will have: the model, the dataset, its
sizes and mixed_precision decide what is found later. Also runs through accelerate launch.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.prepare import LATENTS, command_line

    return command_line(sys.argv[1:], "cache_latents.py", LATENTS)


if __name__ == "__main__":
    sys.exit(run_main(main))
