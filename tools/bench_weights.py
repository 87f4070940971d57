"""What merging, extracting, resizing and converting cost on a full-width SD 1.5 file: time and memory.

    python tools/bench_weights.py --folder SOMEWHERE

Makes a random checkpoint (2.1 GB) and two rank-8 LoRAs there, unless they are there already, then runs
each job in a process of its own and prints one line of JSON: wall and CPU seconds, and the most memory that
the process had (maximum resident set). Outputs are removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="room for 10 GB")
    parser.add_argument("--only", nargs="*", default=[], help="names of jobs")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    model, lora_a, lora_b = (folder / name for name in ("base.safetensors", "a.safetensors", "b.safetensors"))
    if not model.exists():
        subprocess.run([sys.executable, str(ROOT / "tools" / "make_random_sd15.py"), str(model)], check=True)
    for path, seed in ((lora_a, 1), (lora_b, 2)):
        if not path.exists():
            random_lora(model, path, seed)
    out, tuned = folder / "out.safetensors", folder / "tuned.safetensors"
    jobs: dict[str, list[str]] = {
        "merge into checkpoint": [
            "merge_lora.py", "--sd_model", str(model), "--save_to", str(tuned), "--models", str(lora_a),
            "--ratios", "0.8", "--save_precision", "fp16",
        ],
        "merge LoRA and LoRA": [
            "merge_lora.py", "--save_to", str(out), "--models", str(lora_a), str(lora_b),
            "--ratios", "0.6", "0.4",
        ],
        "resize": ["resize_lora.py", "--model", str(lora_a), "--save_to", str(out), "--new_rank", "4"],
        "svd merge": [
            "svd_merge_lora.py", "--save_to", str(out), "--models", str(lora_a), str(lora_b),
            "--ratios", "0.6", "0.4", "--new_rank", "8",
        ],
        "extract": [
            "extract_lora_from_models.py", "--model_org", str(model), "--model_tuned", str(tuned),
            "--save_to", str(out), "--dim", "8",
        ],
        "convert to fp16": ["convert_diffusers20_original_sd.py", "--fp16", str(model), str(out)],
    }  # fmt: skip
    for name, command in jobs.items():
        if not options.only or name in options.only:
            print(json.dumps({"job": name, **measure(command)}), flush=True)
    for path in (out, tuned):
        path.unlink(missing_ok=True)
    return 0


def random_lora(model: Path, path: Path, seed: int) -> None:
    """A LoRA of rank 8 on text encoder and attention blocks, with falling singular values."""
    import torch
    from safetensors.torch import save_file

    from backend.weights.checkpoint import open_checkpoint

    draw = torch.Generator().manual_seed(seed)
    checkpoint, tensors = open_checkpoint(model), dict[str, torch.Tensor]()
    for spot in checkpoint.spots():
        shape = checkpoint.tensors[spot.key].shape
        if spot.container in ("text", "attention") and len(shape) > 1:
            name, flat = f"lora_{spot.name}", [1] * len(shape[2:])
            up = torch.randn(shape[0], 8, generator=draw) * 0.02 * 0.8 ** torch.arange(8)
            tensors[f"{name}.lora_down.weight"] = torch.randn(8, *shape[1:], generator=draw).half()
            tensors[f"{name}.lora_up.weight"] = up.half().reshape(shape[0], 8, *flat)
            tensors[f"{name}.alpha"] = torch.tensor(8.0).half()
    save_file(tensors, path)


def measure(command: list[str]) -> dict[str, float]:
    """Run a tool in a child process and measure it."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / command[0]), *command[1:], "--overwrite"],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return {
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
    }


if __name__ == "__main__":
    sys.exit(run_main(main))
