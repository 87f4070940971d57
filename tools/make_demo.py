"""Make the demo's small model from nothing on the demo world, by time; run again to train on."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    stages = ["start", "vae", "detail", "swap", "text", "tagger", "captioner", "latents", "unet", "export"]
    parser.add_argument(
        "--stage", choices=("all", *stages, "score"), default="all", help="default: all, in order"
    )
    parser.add_argument("--minutes", type=float, default=90, help="wall time for training (default: 90)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("models/demo/atelier-demo.safetensors"))
    parser.add_argument("--work", type=Path, default=Path(".cache/demo-make"), help="snapshots and caches")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, help="learning rate instead of the stage's own")
    parser.add_argument("--decay", type=float, help="share of the time over which the rate falls to nothing")
    parser.add_argument("--plain", type=int, default=8000, help="plain scenes that the U-Net sees")
    parser.add_argument("--mixed", type=int, default=12000, help="scenes of all kinds that it sees")
    parser.add_argument("--mixed-from", type=float, default=0.6, help="share of the time when they come in")
    parser.add_argument("--skew", type=float, default=0.5, help="smaller: noisier timesteps for the U-Net")
    parser.add_argument("--prompts", type=int, default=100, help="fixed prompts that are drawn for the score")
    parser.add_argument("--sheet", type=Path, help="file for their pictures (default: beside the snapshots)")
    options = parser.parse_args()
    if options.minutes <= 0 or options.threads < 1:
        parser.error("--minutes and --threads must be above 0")

    import torch

    from backend.demo.make.stages import STAGES, Making, run
    from backend.demo.make.unet import Lesson

    torch.set_num_threads(options.threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a snapshot is left behind
    making = Making(
        options.work, options.out, options.seed, plain=options.plain, mixed=options.mixed,
        lesson=Lesson(options.mixed_from, options.skew), rate=options.rate, decay=options.decay,
        prompts=options.prompts, sheet=options.sheet,
    )  # fmt: skip
    run(making, STAGES if options.stage == "all" else [options.stage], options.minutes)


if __name__ == "__main__":
    sys.exit(run_main(main))
