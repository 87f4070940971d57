"""Real training subprocesses on the small model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

from backend.jobs.events import read_events
from backend.jobs.files import read_json

if TYPE_CHECKING:
    from tests.e2e.workshop import Workshop

ROOT = Path(__file__).resolve().parents[2]
_STAMP = len("20260131-142500")


@dataclass(frozen=True)
class World:
    """A small model, twelve pictures and a home for runs."""

    home: Path
    model: Path
    pictures: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ATELIER_HOME": str(self.home), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}

    def options(self, **more: Any) -> list[str]:
        """Options of a short run; a value of None leaves one out, True is a bare flag."""
        values: dict[str, Any] = {
            "pretrained_model_name_or_path": self.model,
            "train_data_dir": self.pictures,
            "resolution": "64",
            "train_batch_size": 2,
            "learning_rate": "1e-3",
            "max_train_steps": 4,
            "network_module": "networks.lora",
            "network_dim": 4,
            "seed": 42,
            "cache_latents": True,
            "output_name": "result",
            "output_dir": self.home / "out",
            **more,
        }
        line: list[str] = []
        for key, value in values.items():
            if value is None or value is False:
                continue
            line += (
                [f"--{key}"]
                if value is True
                else [f"--{key}", *(map(str, value) if isinstance(value, list) else [str(value)])]
            )
        return line

    def python(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=ROOT, env=self.environment, text=True,
            capture_output=True, timeout=timeout,
        )  # fmt: skip

    def train(self, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.python("tools/train_network.py", *self.options(**options))

    def newest_run(self) -> Path:
        return newest_run(self.home / "runs")


def newest_run(runs: Path) -> Path:
    """The run that began last. A folder's own time may be that of a run's last file, so the second in its
    name goes first, and then when the run was made."""
    return max(runs.glob("*/"), key=lambda path: (path.name[:_STAMP], _made(path), path.stat().st_mtime_ns))


def _made(run: Path) -> float:
    """The moment that the run's own facts name; 0.0 while they are not written yet."""
    return float((read_json(run / "job.json") or {}).get("created", 0.0))


def events(run: Path, type: str | None = None) -> list[dict[str, Any]]:
    records, _ = read_events(run / "events.jsonl")
    return [record for record in records if type is None or record["type"] == type]


def draw_pictures(folder: Path, count: int = 12, size: int = 80) -> Path:
    """Pictures of coloured shapes of three aspect ratios, each with a caption."""
    target = folder / "2_sks shape"
    target.mkdir(parents=True)
    for index in range(count):
        width, height = ((size, size), (size * 2, size), (size, size * 2))[index % 3]
        picture = Image.new("RGB", (width, height), (40 + 15 * index, 90, 200 - 12 * index))
        ImageDraw.Draw(picture).ellipse(
            (10, 10, width - 10 - index, height - 10), fill=(255 - 20 * index, 180, 30)
        )
        picture.save(target / f"im{index:02d}.png")
        (target / f"im{index:02d}.txt").write_text(
            f"sks shape, number {index}, flat, gradient", encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="session")
def make_world(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    pictures = draw_pictures(tmp_path_factory.mktemp("pictures") / "train")

    def make() -> World:
        return World(tmp_path_factory.mktemp("home"), tiny_sd15, pictures)

    return make


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()


@pytest.fixture(scope="module")
def shop(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Where words and guides are taught, as Atelier's own folder."""
    from tests.e2e.workshop import furnish

    base = tmp_path_factory.mktemp("small")
    before = os.environ.get("ATELIER_HOME")
    os.environ["ATELIER_HOME"] = str(base)
    yield furnish(base, tiny_sd15)
    os.environ.pop("ATELIER_HOME")
    if before is not None:
        os.environ["ATELIER_HOME"] = before


@pytest.fixture
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in this process leaves its signals alone."""
    monkeypatch.setattr("backend.train.run.stop_on_signals", lambda run: None)


@pytest.fixture
def a_process_of_its_own() -> Iterator[None]:
    """A process has one precision otherwise, that of the first run in it."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
