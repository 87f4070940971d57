"""Merge checkpoints: a weighted sum, or the difference of two added to a third.

    python tools/merge_models.py --models a.safetensors b.safetensors --ratios 0.7 0.3 --output ab.safetensors
    python tools/merge_models.py --mode add_difference --models a b c --ratios 1 --output abc.safetensors
    python tools/merge_models.py --models a b --mbw "[0.5,...]" --output ab.safetensors

--mbw has a weight for each of 26 blocks (BASE, IN00-11, MID, OUT00-11; also lists of 12, 17 or 20 as for
--lbws): how much of the second model, or of the difference, the block takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.weights.command import finish, parser
    from backend.weights.merge_models import MergeModels, run
    from backend.weights.precision import PRECISIONS
    from backend.weights.report import Report
    from backend.weights.streaming import Progress

    found = parser(__doc__)
    found.add_argument("--models", type=Path, nargs="+", required=True, help="checkpoints of one family")
    found.add_argument("--output", type=Path, required=True, help="the file to write")
    found.add_argument("--ratios", type=float, nargs="+", default=[], help="one a model [equal shares]")
    found.add_argument("--mode", choices=("weighted_sum", "add_difference"), default="weighted_sum")
    found.add_argument("--mbw", help="weights for blocks, in place of --ratios")
    found.add_argument("--unet_only", action="store_true", help="VAE and text encoders are the first model's")
    found.add_argument("--device", default="cpu", help="cuda calculates on the card [%(default)s]")
    found.add_argument("--precision", choices=PRECISIONS, default="float", help="of sums [%(default)s]")
    found.add_argument(
        "--saving_precision", choices=PRECISIONS, default="float", help="of the output [%(default)s]"
    )
    found.add_argument("--show_skipped", action="store_true", help="name every tensor that is not merged")
    options = found.parse_args()
    job = MergeModels(
        models=options.models,
        output=options.output,
        ratios=options.ratios,
        mode=options.mode,
        mbw=options.mbw,
        unet_only=options.unet_only,
        precision=options.precision,
        saving_precision=options.saving_precision,
        device=options.device,
        overwrite=options.overwrite,
    )
    if not options.show_skipped:
        return finish(lambda progress: run(job, progress), options)
    shown: list[str] = []

    def show(progress: Progress) -> Report:
        report = run(job, progress)
        shown.extend(f"{item.name}: {item.why}" for item in report.dropped)
        return report

    status = finish(show, options)
    print("\n".join(shown))
    return status


if __name__ == "__main__":
    sys.exit(run_main(main))
