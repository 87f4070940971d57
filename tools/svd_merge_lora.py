"""Merge LoRAs of any ranks into one of a given rank, as well as that rank allows.

    python tools/svd_merge_lora.py --save_to ab.safetensors --models a.safetensors b.safetensors \\
        --ratios 0.6 0.4 --new_rank 32 --device cuda

Takes LoRA, LoHa, LoKr and Tucker files. The report says how much of each layer was lost.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import add_precisions, parser, svd_merge

    found = parser(__doc__)
    add_precisions(found, merging=True)
    found.add_argument("--save_to", type=Path, help="the file to write")
    found.add_argument("--models", type=Path, nargs="*", default=[], help="LoRA files")
    found.add_argument("--ratios", type=float, nargs="*", default=[], help="how much of each; 0.5 is half")
    found.add_argument("--lbws", nargs="*", default=[], help='block weights: "[1,0,...]" for each model')
    found.add_argument("--new_rank", type=int, default=4, help="[%(default)s]")
    found.add_argument("--new_conv_rank", type=int, help="for kernels larger than 1x1 [--new_rank]")
    found.add_argument("--device", help="cuda calculates on the card [cpu]")
    found.add_argument("--exact", action="store_true", help="decompose LoHa, LoKr and Tucker sums exactly")
    found.add_argument("--no_metadata", action="store_true", help="write only what other programs need")
    return svd_merge(found.parse_args())


if __name__ == "__main__":
    sys.exit(run_main(main))
