"""Whole trainings in this process, on a model of a few hundred weights: milliseconds a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from backend.data.plan import build_plan
from backend.families.base import AdapterModule, Conditioning, TokenIds
from backend.jobs.runs import Run, create_run
from backend.settings import Settings, check
from backend.system.identify import ModelFile
from backend.train import build
from backend.train.checkpoints import Position
from backend.train.loop import Ending, train
from backend.train.preflight import Prepared
from backend.train.session import Session
from tests.generate.fake import FakeModel


class Text(nn.Module):
    """Letters as vectors, and one layer over them that a network may change."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(256, 8)
        self.layer = nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.layer(self.letters(ids)))


class SmallModel(FakeModel):
    """As the fake model of the generator, with something to train in both parts."""

    family = "sd1"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.text_encoders = {"te": Text().eval().requires_grad_(False)}

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        return {"hidden": self.text_encoders["te"](tokens["te"][:, 0])}

    def adapter_modules(self) -> Iterator[AdapterModule]:
        yield AdapterModule("te_layer", "te", "text", self.text_encoders["te"].layer)
        yield AdapterModule("unet_text", "unet", "attention", self.denoiser.text)


class Events:
    """Keeps what is emitted."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def emit(self, type: str, /, **fields: Any) -> None:
        self.records.append({"type": type, **fields})

    def of(self, type: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["type"] == type]


@dataclass
class Trained:
    """A run that came to an end."""

    session: Session
    position: Position
    events: Events
    run: Run

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.session.method.weights()


def draw_pictures(folder: Path, count: int = 6, captions: Sequence[str] = ()) -> Path:
    """Plain pictures named 0.png and so on, with captions "sks dog 0" or those given."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (64, 64), (40 * index % 256, 90, 200 - 12 * index)).save(folder / f"{index}.png")
        text = captions[index] if captions else f"sks dog {index}"
        (folder / f"{index}.txt").write_text(text, encoding="utf-8")
    return folder


def settings_of(folder: Path, **options: Any) -> Settings:
    values: dict[str, Any] = {
        "pretrained_model_name_or_path": "base.safetensors", "resolution": (64, 64), "train_batch_size": 2,
        "learning_rate": 0.05, "max_train_steps": 6, "network_dim": 2, "seed": 7, "network_alpha": 2.0,
        "max_data_loader_n_workers": 0, "output_name": "result", "recovery_minutes": 0.0,
    }  # fmt: skip
    source = {} if "dataset_config" in options else {"train_data_dir": str(folder)}
    return Settings().replace(**{**values, **source, **options})


def start(
    folder: Path, home: Path, *, model: FakeModel | None = None, run: Run | None = None, **options: Any
) -> tuple[Session, Position, Events, Run]:
    """A session as the trainer builds it, but for the model's file. ``run``: go on with that one."""
    verdict = check(settings_of(folder, **options), complete=False)
    assert not verdict.errors, verdict.errors
    settings, events = verdict.settings, Events()
    made = run or create_run(home, "small", "", None)
    base = ModelFile(Path("base.safetensors"), "base", "sd1")
    prepared = Prepared(settings, build_plan(settings, verify=False, default_resolution=64), base, ())
    before, build.load_base_model = build.load_base_model, lambda *_: model or SmallModel()
    try:
        session, position = build.build_session(made, prepared, run is not None, events, started=0.0)
    finally:
        build.load_base_model = before
    return session, position, events, made


def run_small(folder: Path, home: Path, **options: Any) -> Trained:
    """Train to the end and save."""
    session, position, events, run = start(folder, home, **options)
    ending, position = train(session, position)
    assert ending is Ending.FINISHED
    session.saver.finish(session, position)
    return Trained(session, position, events, run)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
