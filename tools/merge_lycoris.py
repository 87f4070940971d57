"""Merge a LyCORIS file (or any LoRA) into a checkpoint.

    python tools/merge_lycoris.py model.safetensors lycoris.safetensors merged.safetensors --weight 0.8

As merge_lora.py --sd_model, by the names of LyCORIS' own tool; of every family.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main

DTYPES = {"float": "float", "float32": "float", "float16": "fp16", "bfloat16": "bf16", "bfloat": "bf16"}


def main() -> int:
    from backend.weights.command import check_family, finish, parser
    from backend.weights.merge_into import MergeInto, run

    found = parser(__doc__)
    found.add_argument("base_model", type=Path, help="the checkpoint")
    found.add_argument("lycoris_model", type=Path, help="the LyCORIS file")
    found.add_argument("output_name", type=Path, help="the file to write")
    found.add_argument("--is_v2", action="store_true", help="the model is SD 2.x (the file says so, too)")
    found.add_argument("--is_sdxl", action="store_true", help="the model is SDXL (the file says so, too)")
    found.add_argument("--weight", type=float, default=1.0, help="how much of it [%(default)s]")
    found.add_argument("--dtype", choices=tuple(DTYPES), default="float", help="of the output [%(default)s]")
    found.add_argument("--device", help="cuda makes the products of plain pairs on the card [cpu]")
    options = found.parse_args()
    if options.is_v2 or options.is_sdxl:
        family, flag = ("sdxl", "--is_sdxl") if options.is_sdxl else ("sd2", "--is_v2")
        check_family(options.base_model, (family,), flag)
    job = MergeInto(
        sd_model=options.base_model,
        models=[options.lycoris_model],
        ratios=[options.weight],
        save_to=options.output_name,
        save_precision=DTYPES[options.dtype],
        device=options.device,
        overwrite=options.overwrite,
    )
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
