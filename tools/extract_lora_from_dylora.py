"""Take a DyLoRA apart into LoRAs of its ranks: unit, 2 * unit, ...

    python tools/extract_lora_from_dylora.py --model dylora.safetensors --save_to split.safetensors --unit 4

writes split-0004.safetensors, split-0008.safetensors and so on.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import finish, parser
    from backend.weights.dylora import Split, run

    found = parser(__doc__)
    found.add_argument("--unit", type=int, required=True, help="ranks between two files")
    found.add_argument("--save_to", type=Path, required=True, help="name of the outputs, without the rank")
    found.add_argument("--model", type=Path, required=True, help="the DyLoRA")
    options = found.parse_args()
    job = Split(options.model, options.save_to, options.unit, options.overwrite)
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
