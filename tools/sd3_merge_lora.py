"""Merge LoRAs into an SD 3 or 3.5 checkpoint, or into one LoRA. As merge_lora.py.

    python tools/sd3_merge_lora.py --sd_model sd3.safetensors --save_to merged.safetensors \\
        --models a.safetensors --ratios 0.8
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import merge, merge_parser

    return merge(merge_parser(__doc__, lbws=False).parse_args(), ("sd3",), "sd3_merge_lora.py")


if __name__ == "__main__":
    sys.exit(run_main(main))
