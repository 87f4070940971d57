"""What the command lines over model files have in common."""

from __future__ import annotations

import pytest
import torch

from backend.weights.command import merge_parser


def test_a_card_that_is_not_here_may_be_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--device", "cuda", "--ratios", "0.5", "-.25"]
    found = merge_parser("", lbws=True)
    assert found.parse_args(words).device == "cuda", "whoever asks for it is told that it is not here"
    options = found.parse_args([*words, "--allow_fallback"])
    assert options.device is None and options.ratios == [0.5, -0.25]
    assert "no CUDA device here" in capsys.readouterr().err


def test_names_may_be_cut_short_as_in_sd_scripts() -> None:
    options = merge_parser("", lbws=False).parse_args(["--model", "a", "b", "--save_p", "fp16"])
    assert [str(path) for path in options.models] == ["a", "b"] and options.save_precision == "fp16"
