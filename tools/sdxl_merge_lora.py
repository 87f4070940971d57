"""Merge LoRAs into an SDXL checkpoint, or into one LoRA.

    python tools/sdxl_merge_lora.py --sd_model sdxl.safetensors --save_to merged.safetensors \\
        --models a.safetensors b.safetensors --ratios 0.8 0.5 --lbws "[1,1,1,1,1,1,0,0,0,0,0,0]" "[...]"

As merge_lora.py, with block weights (lists of 12, 20 or 26).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import merge, merge_parser

    return merge(merge_parser(__doc__, lbws=True).parse_args(), ("sdxl",), "sdxl_merge_lora.py")


if __name__ == "__main__":
    sys.exit(run_main(main))
