"""Give a LoRA other ranks, fixed or chosen for each layer by its singular values.

    python tools/resize_lora.py --model a.safetensors --save_to small.safetensors --new_rank 8
    python tools/resize_lora.py --model a.safetensors --save_to small.safetensors --new_rank 32 \\
        --dynamic_method sv_fro --dynamic_param 0.95 --verbose

sv_ratio keeps values above the largest over the parameter (2 or more), sv_cumulative as many as make up that
share of their sum, sv_fro of their norm. --new_rank is then the most a layer may have.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import add_precisions, finish, parser
    from backend.weights.resize import Resize, run

    found = parser(__doc__)
    add_precisions(found, merging=False)
    found.add_argument("--new_rank", type=int, default=4, help="[%(default)s]")
    found.add_argument("--new_conv_rank", type=int, help="for kernels larger than 1x1 [--new_rank]")
    found.add_argument("--save_to", type=Path, required=True, help="the file to write")
    found.add_argument("--model", type=Path, required=True, help="the LoRA")
    found.add_argument("--device", help="cuda calculates on the card [cpu]")
    found.add_argument("--verbose", action="store_true", help="a line for each layer")
    found.add_argument("--dynamic_method", choices=("sv_ratio", "sv_fro", "sv_cumulative"))
    found.add_argument("--dynamic_param", type=float, help="what the method needs")
    options = found.parse_args()
    job = Resize(
        model=options.model,
        save_to=options.save_to,
        new_rank=options.new_rank,
        new_conv_rank=options.new_conv_rank,
        dynamic_method=options.dynamic_method,
        dynamic_param=options.dynamic_param,
        save_precision=options.save_precision,
        device=options.device,
        overwrite=options.overwrite,
    )
    return finish(lambda progress: run(job, progress), options, options.verbose)


if __name__ == "__main__":
    sys.exit(run_main(main))
