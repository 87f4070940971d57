"""``tools/draw_grid.py``: a grid from a line, and going on with it."""

from __future__ import annotations

import pytest

from backend import families, networks
from backend.errors import InputError, RunFault
from backend.generate.grid import opened
from backend.generate.grid_command import draw, folder_of, parser
from backend.generate.request import LoraUse
from tests.generate.fake import FakeModel


@pytest.fixture
def line(tmp_path, monkeypatch):
    """Options as a person gives them, with the small model of ``fake`` behind them."""
    (tmp_path / "base.safetensors").write_bytes(b"x")
    monkeypatch.setattr(families, "load", lambda *_args, **_options: FakeModel())

    def options(*words: str):
        shared = ("--ckpt", tmp_path / "base.safetensors", "--outdir", tmp_path / "grids")
        drawing = ("--prompt", "a cat", "--W", 64, "--H", 64, "--steps", 2, "--seed", 5)
        return parser("").parse_args([str(word) for word in (*shared, *drawing, *words)])

    return options


def test_a_grid_is_drawn_and_gone_on_with(line, capsys):
    folder = folder_of(line("--axis", "seed", "1-2", "9", "--axis", "scale", "3", "7"))
    assert [axis.values for axis in folder.grid.axes] == [(1, 2, 9), (3.0, 7.0)]
    assert (folder.grid.request.prompt, folder.grid.request.steps) == ("a cat", 2)
    assert draw(folder) == 0 and not folder.missing() and (folder.path / "sheet.png").is_file()
    whole = folder.picture((2, 1)).read_bytes()
    folder.picture((2, 1)).unlink()
    capsys.readouterr()
    again = folder_of(parser("").parse_args(["--resume", str(folder.path)]))
    assert draw(again) == 0 and folder.picture((2, 1)).read_bytes() == whole
    said = capsys.readouterr().out
    assert "5 of 6" in said and "seed 9, CFG 7" in said and "seed 1" not in said


def test_networks_and_prompts_of_several_words(line):
    words = ("--network_weights", "a.safetensors", "b.safetensors", "--network_mul", "0.5")
    folder = folder_of(line(*words, "--axis", "prompt", "a cat, red", "a dog"))
    assert folder.grid.axes[0].values == ("a cat, red", "a dog")
    assert folder.grid.request.loras == (LoraUse("a.safetensors", 0.5), LoraUse("b.safetensors", 1.0))


def test_cells_that_fail_are_told_and_the_exit_code_says_so(line, monkeypatch, tmp_path):
    for name in ("one.safetensors", "two.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr("backend.generate.grid.kind_of", lambda _files: "lora")

    def unreadable(path):
        raise InputError(f"{path.name} is damaged")

    monkeypatch.setattr(networks, "read_lora", unreadable)
    folder = folder_of(line("--axis", "file", tmp_path / "one.safetensors", tmp_path / "two.safetensors"))
    with pytest.raises(RunFault, match="2 of 2 cells") as caught:
        draw(folder)
    assert str(folder.path) in caught.value.problems[0].next
    assert opened(folder.path).finished() == []


@pytest.mark.parametrize(
    "words, said", [((), "axes"), (("--axis", "hue", "1"), "hue"), (("--axis", "seed"), "no values")]
)
def test_what_cannot_be_planned_is_refused(line, words, said):
    with pytest.raises(InputError, match=said):
        folder_of(line(*words))


def test_a_model_is_needed():
    with pytest.raises(InputError, match="no base model"):
        folder_of(parser("").parse_args(["--axis", "seed", "1"]))
