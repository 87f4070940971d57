"""Merge LoRAs into a checkpoint, or into one LoRA (SD 1.x and 2.x).

    python tools/merge_lora.py --sd_model model.ckpt --save_to merged.safetensors \\
        --models a.safetensors --ratios 0.8
    python tools/merge_lora.py --save_to ab.safetensors --models a.safetensors b.safetensors --ratios 0.6 0.4

A ratio of 0.5 contributes half of a file's change. LoRA into LoRA is exact: ranks add. Any kind of network
that can be used here can go into a checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import merge, merge_parser

    parser = merge_parser(__doc__, lbws=True)
    parser.add_argument("--v2", action="store_true", help="the models are SD 2.x (the files say so, too)")
    options = parser.parse_args()
    return merge(
        options, ("sd2",) if options.v2 else ("sd1", "sd2"), "--v2" if options.v2 else "merge_lora.py"
    )


if __name__ == "__main__":
    sys.exit(run_main(main))
