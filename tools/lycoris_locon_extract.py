"""Make a LoCon out of the difference of two checkpoints, with ranks chosen layer by layer.

    python tools/lycoris_locon_extract.py base.safetensors tuned.safetensors locon.safetensors \\
        --mode quantile --linear_quantile 0.75 --conv_quantile 0.75

fixed: --linear_dim and --conv_dim. full: the differences themselves, of every layer. threshold: singular
values above it. ratio: above that share of the largest. quantile: as many as stay below that share of their
sum. A layer for which a pair would be about as large as its difference keeps the difference.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main

BY_VALUES = ("threshold", "ratio", "quantile")
MODES = ("fixed", "full", *BY_VALUES)


def main() -> int:
    from backend.weights.command import add_precisions, check_family, finish, parser
    from backend.weights.extract import Extract, run

    found = parser(__doc__)
    add_precisions(found, merging=False)
    found.add_argument("base_model", type=Path, help="the original")
    found.add_argument("db_model", type=Path, help="the model that was made from it")
    found.add_argument("output_name", type=Path, help="the file to write")
    found.add_argument("--is_v2", action="store_true", help="the models are SD 2.x (the files say so, too)")
    found.add_argument("--is_sdxl", action="store_true", help="the models are SDXL (the files say so, too)")
    found.add_argument("--device", help="cuda calculates on the card [cpu]")
    found.add_argument("--mode", choices=MODES, default="fixed", help="[%(default)s]")
    found.add_argument("--linear_dim", type=int, default=1, help="[%(default)s]")
    found.add_argument("--conv_dim", type=int, default=1, help="[%(default)s]")
    for mode in BY_VALUES:
        for layers in ("linear", "conv"):
            found.add_argument(f"--{layers}_{mode}", type=float, default=0.0, help="[%(default)s]")
    found.add_argument("--use_sparse_bias", action="store_true", help="keep the largest of what is left out")
    found.add_argument(
        "--sparsity", type=float, default=0.98, help="share of it that is let go [%(default)s]"
    )
    found.add_argument("--disable_cp", action="store_true", help="do not split kernels into a 1x1 and a core")
    options = found.parse_args()
    if options.is_v2 or options.is_sdxl:
        family, flag = ("sdxl", "--is_sdxl") if options.is_sdxl else ("sd2", "--is_v2")
        for path in (options.base_model, options.db_model):
            check_family(path, (family,), flag)
    fixed, by_values = options.mode == "fixed", options.mode in BY_VALUES
    job = Extract(
        model_org=options.base_model,
        model_tuned=options.db_model,
        save_to=options.output_name,
        dim=options.linear_dim,
        conv_dim=options.conv_dim if fixed else None,
        clamp_quantile=1.0,
        min_diff=0.0,
        mode=options.mode,
        linear_value=getattr(options, f"linear_{options.mode}") if by_values else None,
        conv_value=getattr(options, f"conv_{options.mode}") if by_values else None,
        core=not options.disable_cp,
        whole_where_smaller=True,
        sparsity=options.sparsity if options.use_sparse_bias else None,
        save_precision=options.save_precision,
        device=options.device,
        overwrite=options.overwrite,
    )
    return finish(lambda progress: run(job, progress), options)


if __name__ == "__main__":
    sys.exit(run_main(main))
