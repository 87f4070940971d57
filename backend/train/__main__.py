"""``python -m backend.train RUN_FOLDER [--resume]``: train what a run folder says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backend.errors import run_main


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.train", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="a folder inside runs, with config.toml")
    parser.add_argument("--resume", action="store_true", help="go on from the newest restore point")
    arguments = parser.parse_args()

    from backend.train.run import train_folder

    return train_folder(arguments.run, resume=arguments.resume)


if __name__ == "__main__":
    sys.exit(run_main(main))
