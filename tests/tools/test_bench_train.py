"""The training benchmark: a real row on the narrow model, and a suite that no row can break."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import bench_models, bench_train


@pytest.mark.e2e
def test_a_row_of_the_narrow_model(root: Path) -> None:
    line = ["--small", "--batch", "2", "--steps", "3", "--warmup", "1", "--minimum",
            "--set", "gradient_checkpointing=true", "network_dim=2"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "tools/bench_train.py", *line], cwd=root, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["family"] == "sd1" and row["steps"] == 3 and row["batch"] == 2
    assert row["step_p90_s"] >= row["step_median_s"] > 0 and row["minimum_s"] > 0
    assert row["images_per_second"] == pytest.approx(2 / row["step_median_s"], rel=0.01)
    assert list(row["phases_s"]) == ["imports", "pictures", "model", "caches and network", "first step"]
    assert row["start_to_first_step_s"] == pytest.approx(sum(row["phases_s"].values()), abs=0.01)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((0, 'a warning\n{"step_median_s": 1.5}\n'), None),
        ((1, "Traceback\ntorch.OutOfMemoryError: CUDA out of memory\n"), "CUDA out of memory"),
        ((124, "took longer than 90 s"), "took longer"),
        ((0, "no line of data"), "no line of data"),
        ((-9, ""), ""),
    ],
)
def test_a_row_that_fails_is_a_row(
    answer: tuple[int, str], error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_train, "limited", lambda command, seconds: answer)
    row = bench_train.suite_row(bench_train.ROWS[0], 60)
    if error is None:
        assert row == {"step_median_s": 1.5}
    else:
        assert error in row["error"] and row["family"] == "sd1" and row["width"] == "full"


def test_rows_for_which_no_time_is_left_say_so() -> None:
    assert bench_train.suite_row(bench_train.ROWS[0], 1.0)["error"] == "no time was left"


def test_a_program_that_takes_too_long_is_ended() -> None:
    code, output = bench_train.limited([sys.executable, "-c", "import time; time.sleep(60)"], 1.0)
    assert code == 124 and "took longer" in output


def test_the_rows_of_the_suite_are_complete() -> None:
    rows = [bench_train.described(bench_train.parser().parse_args([*row])) for row in bench_train.ROWS]
    wanted = {(f, s, b) for f, s in (("sd1", 512), ("sdxl", 1024), ("sd3", 1024)) for b in (1, 4)}
    plain = [row for row in rows if not row["set"]]
    assert {(row["family"], row["resolution"], row["batch"]) for row in plain} == wanted
    assert {(row["precision"], row["rank"], row["width"]) for row in rows} == {("bf16", 16, "full")}


@pytest.mark.parametrize("family", bench_models.FAMILIES)
def test_narrow_models_of_each_family_compute_finite_numbers(family: str) -> None:
    model = bench_models.build(family, False, torch.float32, "cpu")
    with torch.no_grad():
        pixels = torch.zeros(1, 3, 64, 64)
        latents = model.encode_images(pixels, torch.zeros(1, model.latent_channels, 8, 8))
        text = model.encode_text(model.tokenize(["a picture"]))
    assert latents.isfinite().all() and all(values.isfinite().all() for values in text.values())
