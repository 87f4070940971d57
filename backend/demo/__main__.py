"""``./launch.sh demo``: pictures, training, before and after, without network and without a card."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from backend.errors import run_main

STEPS = 800
"""Enough for the small model to take up the creature; a few minutes on a processor."""


def main() -> int:
    """Run the demo and say where everything is."""
    parser = argparse.ArgumentParser(prog="launch.sh demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="another SD 1.x model file (default: the small one)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error("--steps must be 1 or more")

    from backend.demo.progress import Progress, clock
    from backend.demo.session import run_demo

    started = time.monotonic()
    progress = Progress()
    outcome = run_demo(options.steps, progress, options.model)
    progress.say()
    progress.say(f"Done in {clock(time.monotonic() - started)} (minutes:seconds).")
    progress.say(f"  LoRA              {outcome.lora}")
    progress.say(f"  before and after  {outcome.picture}")
    progress.say("  The demo's model is small: it knows colours and places well and shapes roughly.")
    progress.say("  With a Stable Diffusion file of yours the same steps teach a real subject.")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
