"""Show the size of the values of every tensor in a LoRA, and what the file is.

    python tools/check_lora_weights.py lora.safetensors
    python tools/check_lora_weights.py lora.safetensors --compare other.safetensors

Of alphas and small tensors only with -s. Ends with 1 when there are values that are not finite. --json prints
everything that is known of the file: layers with rank, alpha and norm, blocks, tags, hashes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("-s", "--show_all_keys", action="store_true", help="every tensor, alphas included")
    parser.add_argument("--compare", type=Path, help="a second LoRA to compare it with")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    if options.compare is not None:
        return _compare(options)
    return _json(options) if options.json else _table(options)


def _table(options: argparse.Namespace) -> int:
    from backend.system.identify import identify
    from backend.weights.inspect import tensor_facts

    found = identify(options.file)
    details = ", ".join(f"{name} {value}" for name, value in found.details.items())
    print(f"{options.file.name}: {found.title}{f' ({details})' if details else ''}")
    count = broken = 0
    for fact in tensor_facts(options.file):
        count += 1
        broken += fact.broken
        weighty = (
            fact.name.endswith((".weight", ".diff", ".w_norm"))
            or ".hada_" in fact.name
            or "lokr" in fact.name
        )
        if options.show_all_keys or weighty or fact.broken:
            note = f"  {fact.broken} values are not finite" if fact.broken else ""
            print(
                f"{fact.name:<90} {fact.shape!s:<20} {fact.dtype:<9} mean |x| {fact.mean_abs:.4g}, "
                f"min {fact.smallest:.4g}, max {fact.largest:.4g}{note}"
            )
    print(f"{count} tensors, {broken} values that are not finite")
    return 1 if broken else 0


def _json(options: argparse.Namespace) -> int:
    from backend.weights.inspect import inspect

    print(json.dumps(inspect(options.file).as_dict(), ensure_ascii=False, indent=1))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from backend.weights.compare import compare

    found = compare(options.file, options.compare)
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=1))
        return 0
    print(
        f"{found.shared} layers in both, {len(found.only_first)} only in the first, "
        f"{len(found.only_second)} only in the second"
    )
    print(f"cosine {found.cosine:.4f}, distance {found.distance:.4f} of the first's norm")
    for block, row in found.blocks.items():
        print(f"{block:<6} {row['first']:10.4f} {row['second']:10.4f}  cosine {row['cosine']:.4f}")
    for key, (one, two) in found.settings.items():
        print(f"{key}: {one} | {two}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
