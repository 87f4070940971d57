"""Make a LoRA out of the difference of two checkpoints.

    python tools/extract_lora_from_models.py --model_org base.ckpt --model_tuned tuned.ckpt \\
        --save_to lora.safetensors --dim 4

The report says how much of each layer the LoRA holds, and what differs but has no place in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import add_precisions, check_family, finish, parser
    from backend.weights.extract import Extract, run
    from backend.weights.precision import PRECISIONS

    found = parser(__doc__)
    add_precisions(found, merging=False)
    found.add_argument("--v2", action="store_true", help="the models are SD 2.x (the files say so, too)")
    found.add_argument("--v_parameterization", action="store_true", default=None, help="note v-prediction")
    found.add_argument("--sdxl", action="store_true", help="the models are SDXL (the files say so, too)")
    found.add_argument("--load_precision", choices=PRECISIONS, help="round both models to it first")
    found.add_argument("--model_org", type=Path, required=True, help="the original")
    found.add_argument("--model_tuned", type=Path, required=True, help="the model that was made from it")
    found.add_argument("--save_to", type=Path, required=True, help="the file to write")
    found.add_argument("--dim", type=int, default=4, help="rank [%(default)s]")
    found.add_argument("--conv_dim", type=int, help="rank of 3x3 convolutions [resnets are left out]")
    found.add_argument("--device", help="cuda calculates on the card [cpu]")
    found.add_argument("--clamp_quantile", type=float, default=0.99, help="1 cuts nothing [%(default)s]")
    found.add_argument(
        "--min_diff",
        type=float,
        default=0.01,
        help="text encoders that differ less are left out [%(default)s]",
    )
    found.add_argument("--exact", action="store_true", help="exact SVD in place of the fast one")
    found.add_argument("--no_metadata", action="store_true", help="write only what other programs need")
    for name in ("load_original_model_to", "load_tuned_model_to"):
        found.add_argument(f"--{name}", help="where to calculate, when --device is not given")
    options = found.parse_args()
    if options.v2 or options.sdxl:
        family = ("sdxl",) if options.sdxl else ("sd2",)
        for path in (options.model_org, options.model_tuned):
            check_family(path, family, "--sdxl" if options.sdxl else "--v2")
    job = Extract(
        model_org=options.model_org,
        model_tuned=options.model_tuned,
        save_to=options.save_to,
        dim=options.dim,
        conv_dim=options.conv_dim,
        clamp_quantile=options.clamp_quantile,
        min_diff=options.min_diff,
        exact=options.exact,
        load_precision=options.load_precision,
        save_precision=options.save_precision,
        device=options.device,
        device_org=options.load_original_model_to or options.load_tuned_model_to,
        no_metadata=options.no_metadata,
        v_prediction=options.v_parameterization,
        overwrite=options.overwrite,
    )
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
