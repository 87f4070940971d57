"""How long a training takes to start, and each of its steps, on the small model.

    python tools/bench_start.py [--steps 40] [--runs 3] [--threads 1]

Makes the small random model and twelve pictures of 128 px in a temporary folder, trains a LoRA of
rank 8 with cached latents in a subprocess of its own, and prints one JSON line: CPU seconds from the
start of the process to the end of step 1, CPU and wall seconds of a later step, and peak memory.
The figures are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.demo.tiny import build_tiny_sd15
from backend.errors import run_main
from backend.system.paths import REPOSITORY


def draw_pictures(folder: Path, count: int = 12, side: int = 128) -> None:
    """Coloured discs with a caption each, in a folder ``2_sks shape``."""
    target = folder / "2_sks shape"
    target.mkdir(parents=True)
    for index in range(count):
        picture = Image.new("RGB", (side, side), (20 * index, 120, 255 - 20 * index))
        ImageDraw.Draw(picture).ellipse((20, 20, side - 20 - index, side - 20), fill=(240, 200, 10 * index))
        picture.save(target / f"{index:02d}.png")
        (target / f"{index:02d}.txt").write_text(f"sks shape, number {index}", encoding="utf-8")


def measure(folder: Path, model: Path, steps: int, threads: int) -> dict[str, float]:
    """CPU and wall seconds and peak memory in bytes of one training of ``steps`` steps."""
    command = [sys.executable, "tools/train_network.py", f"--pretrained_model_name_or_path={model}",
               f"--train_data_dir={folder / 'pictures'}", "--resolution=128", "--learning_rate=1e-3",
               "--network_dim=8", f"--max_train_steps={steps}", "--cache_latents", "--seed=1"]  # fmt: skip
    environment = {**os.environ, "ATELIER_HOME": str(folder), "OMP_NUM_THREADS": str(threads)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": time.perf_counter() - start, "memory": after.ru_maxrss * 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "tiny.safetensors"
        build_tiny_sd15(model)
        draw_pictures(folder / "pictures")
        one = [measure(folder, model, 1, asked.threads) for _ in range(asked.runs)]
        many = [measure(folder, model, asked.steps, asked.threads) for _ in range(asked.runs)]
    later = asked.steps - 1
    print(
        json.dumps(
            {
                "start_to_first_step_cpu_s": round(statistics.median(m["cpu"] for m in one), 3),
                "step_cpu_s": round(_difference(many, one, "cpu") / later, 4),
                "step_wall_s": round(_difference(many, one, "wall") / later, 4),
                "peak_memory_gb": round(max(m["memory"] for m in many) / 1e9, 3),
                "runs": asked.runs,
                "threads": asked.threads,
            }
        )
    )
    return 0


def _difference(many: list[dict[str, float]], one: list[dict[str, float]], key: str) -> float:
    return statistics.median(m[key] for m in many) - statistics.median(m[key] for m in one)


if __name__ == "__main__":
    sys.exit(run_main(main))
