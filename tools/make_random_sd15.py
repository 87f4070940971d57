"""Write a full-width SD 1.5 checkpoint with random weights: for tests and benchmarks of loading."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> None:
    """Parse the command line and write the file, one tensor in memory at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="file to write (.safetensors)")
    parser.add_argument(
        "--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="type of the weights"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same file")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    args = parser.parse_args()

    from backend.weights.report import check_output

    check_output(args.out, [], args.overwrite, "out").parent.mkdir(parents=True, exist_ok=True)

    import torch

    from backend.demo.tiny import write_random
    from backend.families.parts.clip import ClipShape
    from backend.families.parts.unet import UNetShape
    from backend.families.parts.vae import VaeShape
    from backend.families.sd1.layout import original_shapes

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[args.dtype]
    shapes = original_shapes(UNetShape(), ClipShape(), VaeShape())
    done = 0

    def seen(_: str) -> None:
        nonlocal done
        done += 1
        if done % 50 == 0 or done == len(shapes):
            print(f"\r{done}/{len(shapes)} tensors", end="", flush=True)

    write_random(args.out, shapes, dtype, args.seed, {}, seen)
    print(f"\n{args.out}: {args.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.exit(run_main(main))
