"""``./launch.sh demo``: pictures, training, before and after, without network and without a card.

``./launch.sh demo pictures`` writes pictures of the demo world instead, to try things on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from backend.errors import run_main

STEPS = 600
"""Enough for the small model to take up the creature; a few minutes on a processor."""


def main() -> int:
    """Run the demo and say where everything is, or write pictures."""
    if sys.argv[1:2] == ["pictures"]:
        return write_pictures(sys.argv[2:])
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """The demo."""
    parser = argparse.ArgumentParser(prog="launch.sh demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="another SD 1.x model file (default: the small one)")
    options = parser.parse_args(arguments)
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
    progress.say("  The demo's model is small: it knows colours and places well and draws with a rough pen.")
    progress.say("  With a Stable Diffusion file of yours the same steps teach a real subject.")
    return 0


def write_pictures(arguments: Sequence[str]) -> int:
    """A set of pictures of the demo world."""
    from backend.demo.sets import SETS, make

    about = "Write pictures of the demo world with captions, to train on or to try tools on."
    parser = argparse.ArgumentParser(prog="launch.sh demo pictures", description=about, allow_abbrev=False)
    parser.add_argument("--what", choices=tuple(SETS), required=True, help="which set")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is empty or not there yet")
    parser.add_argument(
        "--seed", type=int, default=7, help="another seed draws others (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    print(make(options.what, options.out, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
