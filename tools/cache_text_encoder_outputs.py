"""Encode the captions of a dataset into the cache on disk, ahead of training.

python tools/cache_text_encoder_outputs.py --pretrained_model_name_or_path M --dataset_config D.toml --seed 42

Takes the training's options. Give those that the training will have: the model, the captions and
their options, clip_skip, max_token_length, mixed_precision, and the seed where captions are
shuffled. Also runs through accelerate launch.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.train.prepare import TEXTS, command_line

    return command_line(sys.argv[1:], "cache_text_encoder_outputs.py", TEXTS)


if __name__ == "__main__":
    sys.exit(run_main(main))
