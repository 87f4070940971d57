"""Draw a grid of pictures: one prompt, varied along up to three axes.

    python tools/draw_grid.py --ckpt model.safetensors --prompt "a cat" --seed 1 \\
        --axis file runs/my-cat/checkpoints/*.safetensors --axis strength 0.6 0.8 1
    python tools/draw_grid.py --resume outputs/grids/20260101-120000-grid

A grid is a folder: a plan, a picture for each finished cell, and a contact sheet with labels. It goes on
where it was left. The page shows grids below its outputs folder and lets people vote in them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.generate.grid_command import draw, folder_of, parser

    return draw(folder_of(parser(__doc__).parse_args()))


if __name__ == "__main__":
    sys.exit(run_main(main))
