"""Draw pictures with SDXL from the command line.

    python tools/sdxl_gen_img.py --ckpt model.safetensors --prompt "a cat --n blurry --w 512 --h 768" \\
        --network_module networks.lora --network_weights a.safetensors --network_mul 0.8 \\
        --control_net_lllite_models L.safetensors --guide_image_path G.png

Options and defaults are those of sd-scripts. See docs/generate-on-the-command-line.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.generate.gen_options import parser

    options = parser(__doc__, sdxl=True).parse_args()
    options.sdxl = True
    # Idle threads must not spin: on a busy processor that makes each step many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from backend.generate.gen_run import run

    return run(options)


if __name__ == "__main__":
    sys.exit(run_main(main))
