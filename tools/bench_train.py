"""How fast a LoRA trains: the program's own loop on a model with random weights.

    python tools/bench_train.py --family sd1 --full --resolution 512 --batch 4 --precision bf16
    python tools/bench_train.py --small --minimum                 (a narrow model; runs anywhere)
    python tools/bench_train.py --suite gpu                       (all rows on a CUDA card, then its tests)

A row builds the model on the device, makes pictures, caches latents and text, attaches a LoRA, and
runs the training loop: warm-up, then each step timed with the device waited for. One JSON line: median
and 90th percentile of a step, pictures a second, peak memory of the steps, seconds from the start to
the first step by phase. ``--set key=value`` gives any option of the trainer, --minimum also measures
forward, backward, clipping and optimizer alone, and gives the loop's time over that as ``overhead``
(of CPU time on a processor, where other programs disturb wall time).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import InputError, run_main
from backend.system.paths import REPOSITORY

if TYPE_CHECKING:
    from backend.data.loader import Batch
    from backend.train.checkpoints import Position
    from backend.train.session import Session

SUITE_SECONDS = 470.0
"""Within which the whole suite ends."""
ROW_SECONDS = 90.0
TEST_SECONDS = 150.0
"""Kept for the tests at the end."""
_CARD = ["--full", "--precision", "bf16", "--rank", "16"]
ROWS: tuple[tuple[str, ...], ...] = tuple(
    (*_CARD, "--family", family, "--resolution", str(side), "--batch", str(batch))
    for family, side in (("sd1", 512), ("sdxl", 1024), ("sd3", 1024))
    for batch in (1, 4)
) + tuple(
    (*_CARD, "--family", "sdxl", "--resolution", "1024", "--batch", "1", "--set", *switch)
    for switch in (["gradient_checkpointing=true"], ["fp8_base=true"], ["mem_eff_attn=true"])
)


class Took(NamedTuple):
    """What a step took, in seconds."""

    wall: float
    cpu: float
    """Of all threads of the process."""


class Silent:
    """Takes events and drops them."""

    def emit(self, type: str, /, **fields: Any) -> None:
        return


class Clock:
    """Seconds of each phase until the first step."""

    def __init__(self) -> None:
        import psutil

        self.phases: dict[str, float] = {}
        # The process is older than this line by what the interpreter and the imports above took.
        self._last = time.perf_counter() - (time.time() - psutil.Process().create_time())

    def mark(self, phase: str) -> None:
        synchronize()
        now = time.perf_counter()
        self.phases[phase], self._last = round(now - self._last, 3), now


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def draw_pictures(folder: Path, count: int, side: int) -> Path:
    """Plain pictures, each with a caption of its own."""
    from PIL import Image

    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (side, side), (31 * index % 256, 120, 200)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a picture, number {index}", encoding="utf-8")
    return folder


def options_of(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The trainer's settings for a row."""
    side = asked.resolution
    count = max(4, 2 * asked.batch)
    return {
        "pretrained_model_name_or_path": "random.safetensors",
        "train_data_dir": str(draw_pictures(folder / "pictures", count, side)),
        "resolution": str(side),
        "train_batch_size": asked.batch,
        "max_train_steps": asked.warmup + asked.steps + 1,
        "mixed_precision": asked.precision,
        "network_dim": asked.rank,
        "network_train_unet_only": True,
        "cache_latents": True,
        "cache_text_encoder_outputs": True,
        "learning_rate": 1e-4,
        "recovery_minutes": 0,
        "max_data_loader_n_workers": 2,
        "seed": 1,
        **dict(item.split("=", 1) for item in asked.set),
    }


def start(asked: argparse.Namespace, folder: Path, clock: Clock) -> tuple[Session, Position]:
    """A session as the trainer builds it, but for the file of the model."""
    from backend.data.plan import build_plan
    from backend.jobs.runs import create_run
    from backend.settings import Settings, check
    from backend.system.identify import ModelFile
    from backend.train import build, machine
    from backend.train.preflight import Prepared
    from tools import bench_models

    clock.mark("imports")
    verdict = check(Settings.from_flat(options_of(asked, folder)))
    if verdict.errors:
        raise InputError(verdict.errors)
    settings = verdict.settings
    plan = build_plan(settings, verify=False, default_resolution=asked.resolution)
    clock.mark("pictures")

    def load(prepared: Any, settings: Settings, accelerator: Any, events: Any) -> Any:
        dtype = machine.BASE_DTYPES[settings.precision.mixed_precision]
        model = bench_models.build(asked.family, asked.full, dtype, accelerator.device)
        machine.fit_out(model, settings, accelerator.device, events)
        clock.mark("model")
        return model

    build.load_base_model = load  # there is no file to load
    base = ModelFile(Path("random.safetensors"), "base", asked.family)
    run = create_run(folder / "runs", "bench", "", None)
    made = build.build_session(run, Prepared(settings, plan, base, ()), False, Silent(), time.time())
    clock.mark("caches and network")
    return made


def batches(session: Session) -> Iterator[Batch]:
    return chain.from_iterable(session.loader.epoch(epoch) for epoch in range(1, 1_000_000))


def timed_steps(session: Session, position: Position, count: int, source: Iterator[Batch]) -> list[Took]:
    """Times of each of ``count`` steps of the loop, drawing noise and loading included."""
    from dataclasses import replace

    from backend.train.loop import one_step

    took: list[Took] = []
    for number in range(count):
        begun, used = time.perf_counter(), time.process_time()
        one_step(session, [next(source)], replace(position, step=number))
        synchronize()
        took.append(Took(time.perf_counter() - begun, time.process_time() - used))
    return took


def timed_minimum(session: Session, count: int, batch: Batch) -> list[Took]:
    """Times of forward, backward, clipping and optimizer step on one batch, again and again."""
    import torch

    inputs = session.inputs(batch)
    parameters = list(session.method.trainable.parameters())
    took: list[Took] = []
    for _ in range(count):
        begun, used = time.perf_counter(), time.process_time()
        with session.accelerator.autocast():
            loss = session.module(inputs).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        session.optimizer.step()
        session.optimizer.zero_grad(set_to_none=True)
        synchronize()
        took.append(Took(time.perf_counter() - begun, time.process_time() - used))
    return took


def peak_memory() -> int:
    """Bytes: of the card, or of the process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as name:
        os.environ["ATELIER_HOME"] = name
        session, position = start(asked, Path(name), clock)
        import torch

        source = batches(session)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        timed_steps(session, position, 1, source)
        clock.mark("first step")
        timed_steps(session, position, asked.warmup, source)
        took = timed_steps(session, position, asked.steps, source)
        memory = peak_memory()
        least = timed_minimum(session, asked.steps, next(source)) if asked.minimum else []
    return row(asked, took, least, memory, clock)


def row(
    asked: argparse.Namespace, took: list[Took], least: list[Took], memory: int, clock: Clock
) -> dict[str, Any]:
    import torch

    walls = sorted(step.wall for step in took)
    median, cpu = statistics.median(walls), statistics.median(step.cpu for step in took)
    found: dict[str, Any] = {
        **described(asked),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "processor",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "steps": len(walls),
        "step_median_s": round(median, 4),
        "step_p90_s": round(walls[int(0.9 * (len(walls) - 1))], 4),
        "step_cpu_median_s": round(cpu, 4),
        "images_per_second": round(asked.batch / median, 3),
        "peak_memory_gb": round(memory / 1e9, 3),
        "start_to_first_step_s": round(sum(clock.phases.values()), 3),
        "phases_s": clock.phases,
    }
    if least:
        on_card = torch.cuda.is_available()
        bare = statistics.median(step.wall if on_card else step.cpu for step in least)
        found |= {"minimum_s": round(bare, 4), "overhead": round((median if on_card else cpu) / bare, 3)}
    return found


def described(asked: argparse.Namespace) -> dict[str, Any]:
    """What a row is about."""
    return {
        "family": asked.family,
        "width": "full" if asked.full else "small",
        "resolution": asked.resolution,
        "batch": asked.batch,
        "precision": asked.precision,
        "rank": asked.rank,
        "set": list(asked.set),
    }


def suite() -> int:
    """Every row in a process of its own, then the tests that need a card. A row that fails is a row."""
    end = time.perf_counter() + SUITE_SECONDS
    for arguments in ROWS:
        left = end - TEST_SECONDS - time.perf_counter()
        print(json.dumps(suite_row(arguments, min(ROW_SECONDS, left))), flush=True)
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    done = limited(tests, end - time.perf_counter())
    print(json.dumps({"tests": done[1].strip().splitlines()[-1:], "passed": done[0] == 0}), flush=True)
    return 0 if done[0] == 0 else 1


def suite_row(arguments: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """What a row's process prints, or what went wrong."""
    about = described(parser().parse_args([*arguments]))
    if seconds < 5:
        return {**about, "error": "no time was left"}
    code, output = limited([sys.executable, "tools/bench_train.py", *arguments], seconds)
    lines = output.strip().splitlines() or [""]
    try:
        return json.loads(lines[-1]) if code == 0 else {**about, "error": lines[-1], "exit_code": code}
    except ValueError:
        return {**about, "error": lines[-1]}


def limited(command: list[str], seconds: float) -> tuple[int, str]:
    """Exit code and output of a program; 124 when it took longer."""
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=max(1.0, seconds), errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"took longer than {seconds:.0f} s"
    return done.returncode, done.stdout


def assigned(text: str) -> str:
    """KEY=VALUE. Raises ValueError, which the command line says in words."""
    if "=" not in text:
        raise ValueError(text)
    return text


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--suite", choices=("gpu",), help="all rows on a CUDA card, then the tests for it")
    made.add_argument("--family", choices=("sd1", "sdxl", "sd3"), default="sd1")
    width = made.add_mutually_exclusive_group()
    width.add_argument("--full", action="store_true", help="the real width")
    width.add_argument("--small", dest="full", action="store_false", help="a narrow model (default)")
    made.add_argument("--resolution", type=int, default=64)
    made.add_argument("--batch", type=int, default=1)
    made.add_argument("--precision", choices=("no", "fp16", "bf16"), default="no")
    made.add_argument("--rank", type=int, default=16)
    made.add_argument("--warmup", type=int, default=5)
    made.add_argument("--steps", type=int, default=20)
    made.add_argument(
        "--set", nargs="+", default=[], type=assigned, metavar="KEY=VALUE", help="options of the trainer"
    )
    made.add_argument("--minimum", action="store_true", help="measure the bare step as well")
    return made


def main() -> int:
    asked = parser().parse_args()
    if asked.suite is None:
        # As the program's own jobs: threads that wait leave the processor to others.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        print(json.dumps(measure(asked)))
        return 0
    import torch

    if not torch.cuda.is_available():
        print("there is no CUDA card; without --suite a row runs on the processor", file=sys.stderr)
        return 3
    return suite()


if __name__ == "__main__":
    sys.exit(run_main(main))
