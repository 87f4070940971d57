"""``./launch.sh demo``: pictures, training, before and after, without network and without a card."""

from __future__ import annotations

import argparse
import sys
import time

from backend.errors import run_main

STEPS = 200
"""Enough to see that a model with random weights moves; about a minute."""


def main() -> int:
    """Run the demo and say where everything is."""
    parser = argparse.ArgumentParser(prog="launch.sh demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error("--steps must be 1 or more")

    from backend.demo.progress import Progress, clock
    from backend.demo.session import run_demo

    started = time.monotonic()
    progress = Progress()
    outcome = run_demo(options.steps, progress)
    progress.say()
    progress.say(f"Done in {clock(time.monotonic() - started)} (minutes:seconds).")
    progress.say(f"  LoRA              {outcome.lora}")
    progress.say(f"  before and after  {outcome.picture}")
    progress.say("  The model of this demo has random weights, so it draws patterns, not things;")
    progress.say("  with a Stable Diffusion file of yours the same steps teach a real subject.")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
