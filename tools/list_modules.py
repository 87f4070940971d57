"""List what a network would train on a published model, with ranks and numbers, without its weights.

    python tools/list_modules.py --arch sdxl --network_dim 16 --network_args conv_dim=8 conv_alpha=4
    python tools/list_modules.py --arch sd15 --network_train_unet_only --json > shapes.json

All network options of train_network.py are understood, learning rates of 0 included.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main
from backend.families import PUBLISHED


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", choices=PUBLISHED, required=True, help="the model")
    parser.add_argument("--json", action="store_true", help="print {weight name: shape} of the whole file")
    own, rest = parser.parse_known_args()

    from backend.settings import parse_command_line
    from backend.train.listing import list_modules

    command = parse_command_line(rest, prog="list_modules.py", complete=False)
    for note in command.notes:
        print(note.text(), file=sys.stderr)
    modules = list_modules(own.arch, command.settings)
    if own.json:
        print(
            json.dumps({name: shape for module in modules for name, shape in module.shapes.items()}, indent=1)
        )
        return 0
    width = max(len(module.name) for module in modules)
    print(f"{'module':{width}}  {'part':5} {'inside':10} {'rank':>5} {'alpha':>7} {'numbers':>10}")
    for module in modules:
        rank = "" if module.rank is None else str(module.rank)
        alpha = "" if module.alpha is None else f"{module.alpha:g}"
        row = f"{module.part:5} {module.container:10} {rank:>5} {alpha:>7} {module.parameters:>10,}"
        print(f"{module.name:{width}}  {row}")
    print(f"{len(modules)} modules, {sum(module.parameters for module in modules):,} numbers to train")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
