"""Compute one training step on given tensors and captions, and write loss and gradient norms.

    python tools/probe_step.py [any trainer options] --tensors T.safetensors --captions J.json \
        --out R.json [--use_noisy_latents]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    parser = argparse.ArgumentParser(add_help=True, allow_abbrev=False, description=__doc__)
    parser.add_argument("--tensors", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--use_noisy_latents", action="store_true")
    own, rest = parser.parse_known_args()

    from backend.settings import parse_command_line
    from backend.train.probe import probe
    from backend.weights.safefile import write_text_atomic

    command = parse_command_line(rest, prog="probe_step.py", complete=False)
    for note in command.notes:
        print(note.text(), file=sys.stderr)
    result = probe(command.settings, own.tensors, own.captions, own.use_noisy_latents)
    write_text_atomic(own.out, json.dumps(result, indent=1))
    print(f"loss {result['loss']:.6f}, gradient norm {result['total_grad_norm']:.6f} -> {own.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
