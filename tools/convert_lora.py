"""Rewrite a LoRA in the names of another program: kohya, diffusers (PEFT) or ComfyUI.

    python tools/convert_lora.py --model kohya.safetensors --save_to peft.safetensors --to diffusers
    python tools/convert_lora.py --model peft.safetensors --save_to kohya.safetensors --to kohya

The names that the file has now are found by themselves. diffusers has no alpha: the strength goes into the
weights there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import add_precisions, finish, parser
    from backend.weights.convert_lora import DIALECTS, ConvertLora, run

    found = parser(__doc__)
    add_precisions(found, merging=False, unset="of the output [as stored]")
    found.add_argument("--model", type=Path, required=True, help="the LoRA")
    found.add_argument("--save_to", type=Path, required=True, help="the file to write")
    found.add_argument("--to", choices=DIALECTS, default="diffusers", help="whose names [%(default)s]")
    options = found.parse_args()
    job = ConvertLora(options.model, options.save_to, options.to, options.save_precision, options.overwrite)
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
