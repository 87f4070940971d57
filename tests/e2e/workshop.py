"""Small models, pictures and guides for trainings of words and ControlNet-LLLite in this process."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from backend.demo import tiny
from backend.errors import run_main
from backend.train.entry import train_from_line
from tests.e2e.conftest import draw_pictures

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    "train_textual_inversion.py": (("sd1", "sd2"), "textual_inversion"),
    "sdxl_train_textual_inversion.py": (("sdxl",), "textual_inversion"),
    "sdxl_train_control_net_lllite.py": (("sdxl",), "lllite"),
}
WORD, XL_WORD, LLLITE = TOOLS


@dataclass(frozen=True)
class Workshop:
    """Small models, four pictures with guides, and a home for runs."""

    home: Path
    sd1: Path
    sdxl: Path
    pictures: Path
    guides: Path

    def line(self, tool: str, **more: Any) -> list[str]:
        """A command line; a value of None leaves an option out, True is a bare switch."""
        values: dict[str, Any] = {
            "pretrained_model_name_or_path": self.sd1 if tool == WORD else self.sdxl,
            "train_data_dir": self.pictures,
            "resolution": "64",
            "learning_rate": "5e-3",
            "max_train_steps": 2,
            "seed": 42,
            "cache_latents": True,
            "output_name": "result",
            "output_dir": self.home / "out",
            "max_data_loader_n_workers": 0,
        }
        if tool == LLLITE:
            values |= {"conditioning_data_dir": self.guides, "cond_emb_dim": 8, "network_dim": 4}
        else:
            values |= {"token_string": "sks", "init_word": "cat"}
        found: list[str] = []
        for key, value in (values | more).items():
            if value is not None:
                found += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        return found

    def train(self, tool: str, **more: Any) -> int:
        families, method = TOOLS[tool]
        return run_main(lambda: train_from_line(self.line(tool, **more), tool, families, method))

    def out(self, name: str) -> Path:
        return self.home / "out" / name

    def runs(self) -> list[Path]:
        return sorted((self.home / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def furnish(base: Path, sd1: Path) -> Workshop:
    """A workshop in an empty folder."""
    tiny.build_tiny_sdxl(base / "sdxl.safetensors")
    pictures = draw_pictures(base / "train", count=4)
    guides = base / "guides"
    guides.mkdir()
    for picture in (pictures / "2_sks shape").glob("*.png"):
        Image.open(picture).convert("L").convert("RGB").save(guides / picture.name)
    return Workshop(base, sd1, base / "sdxl.safetensors", pictures, guides)


def same(one: Path, other: Path) -> bool:
    """Two files hold the same numbers."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def typed(monkeypatch: pytest.MonkeyPatch, tool: str, line: list[str]) -> int:
    """What a script of ``tools`` says to a command line."""
    monkeypatch.setattr("sys.argv", [tool, *line])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    return int(ended.value.code or 0)
