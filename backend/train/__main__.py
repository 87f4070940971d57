"""``python -m backend.train RUN_FOLDER [--resume [--option value ...]]``: train what a run folder says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backend.errors import run_main


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.train", allow_abbrev=False)
    parser.add_argument("run", type=Path, nargs="?", help="a folder inside runs, with config.toml")
    parser.add_argument("--resume", action="store_true", help="go on from the newest restore point")
    parser.add_argument("--keep_log", action="store_true", help="write what is printed into log.txt as well")
    parser.add_argument("--join", action="store_true", help="train along with the run of machine 0")
    parser.add_argument("--ddp_timeout", type=int, help="with --join: the run's own, in minutes")
    arguments, options = parser.parse_known_args()
    if options and not (arguments.run and arguments.resume):
        parser.error(f"unknown arguments: {' '.join(options)}; options of a run may stand beside --resume")
    if (arguments.run is None) is not arguments.join:
        parser.error("give a run folder, or --join on a machine that is not the first one")

    from backend.train.run import join_others, train_folder

    if arguments.join:
        return join_others(arguments.ddp_timeout)
    if options:
        from backend.jobs.runs import open_run
        from backend.train.amend import amend

        amend(open_run(arguments.run), options)
    return train_folder(arguments.run, resume=arguments.resume, keep_log=arguments.keep_log)


if __name__ == "__main__":
    sys.exit(run_main(main))
