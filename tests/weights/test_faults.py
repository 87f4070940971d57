"""Damaged, foreign and dangerous files are named for what they are, and nothing is written."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import AtelierError, RunFault
from backend.weights.extract import Extract
from backend.weights.extract import run as extract
from backend.weights.merge_into import MergeInto
from backend.weights.merge_into import run as merge_into
from backend.weights.merge_models import MergeModels
from backend.weights.merge_models import run as merge_models
from backend.weights.resize import Resize
from backend.weights.resize import run as resize
from tests.weights.weights_kit import left_behind, make_lora, tensors_of


def header(table, data=b""):
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


class Evil:
    def __reduce__(self):
        return os.system, ("echo broken into",)


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """name -> (file, a word of the message)."""
    good = make_lora(folder / "good.safetensors").read_bytes()
    files = {
        "length": (struct.pack("<Q", 1 << 60) + b"{}", "damaged"),
        "json": (struct.pack("<Q", 4) + b"{bad", "damaged"),
        "offset": (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), "damaged"),
        "overlap": (
            header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"\0" * 4),
            "overlaps",
        ),
        "cut": (good[: len(good) // 2], "cut short"),
        "empty": (b"", "empty"),
        "text": (b"hello there, I am no model\n", "text file"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        "html": (b"<!DOCTYPE html><html>404</html>", "HTML page"),
    }
    found: dict[str, tuple[Path, str]] = {}
    for name, (content, word) in files.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(content)
        found[name] = path, word
    torch.save(Evil(), folder / "evil.ckpt")
    return {**found, "evil": (folder / "evil.ckpt", "system")}


@pytest.mark.parametrize(
    "name", ["length", "json", "offset", "overlap", "cut", "empty", "text", "lfs", "html", "evil"]
)
def test_files_that_are_no_models_are_named(name, tiny_sd15, tmp_path, capfd):
    path, word = damaged(tmp_path)[name]
    lora, out = tmp_path / "good.safetensors", tmp_path / "out.safetensors"
    for job in (
        lambda: merge_into(MergeInto(tiny_sd15, [path], [1.0], out)),
        lambda: merge_into(MergeInto(path, [lora], [1.0], out)),
        lambda: resize(Resize(path, out)),
        lambda: extract(Extract(tiny_sd15, path, out)),
        lambda: merge_models(MergeModels([tiny_sd15, path], out)),
    ):
        with pytest.raises(AtelierError) as caught:
            job()
        assert caught.value.exit_code == 2 and word in caught.value.text()
    assert "broken into" not in capfd.readouterr().out
    assert not out.exists() and not left_behind(tmp_path)


def test_harmless_pickles_are_read(tiny_sd15, tmp_path):
    tensors = tensors_of(make_lora(tmp_path / "a.safetensors"))
    torch.save({"state_dict": tensors}, tmp_path / "a.pt")
    report = merge_into(MergeInto(tiny_sd15, [tmp_path / "a.pt"], [1.0], tmp_path / "m.safetensors"))
    assert len(report.kept) == 4


def test_a_model_with_broken_values_is_found(tiny_sd15, tmp_path):
    tensors = tensors_of(tiny_sd15)
    name = "model.diffusion_model.out.2.weight"
    tensors[name][0, :2, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    lora, out = make_lora(tmp_path / "a.safetensors"), tmp_path / "m.safetensors"
    with pytest.raises(RunFault, match=f"2 non-finite values in {name}") as caught:
        merge_into(MergeInto(tmp_path / "nan.safetensors", [lora], [1.0], out))
    assert "in an input already" in caught.value.text()
    assert not out.exists() and not left_behind(tmp_path)


def test_a_file_of_another_kind_that_does_not_fit_is_named(tiny_sd15, tmp_path):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    save_file({f"{name}.{part}": torch.ones(4, 4) for part in parts}, tmp_path / "loha.safetensors")
    out = tmp_path / "m.safetensors"
    with pytest.raises(AtelierError) as caught:
        merge_into(MergeInto(tiny_sd15, [tmp_path / "loha.safetensors"], [1.0], out))
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "loha.safetensors") and "[4, 4]" in problem.what
    assert problem.next == "choose a file made for this model", "its rank is no matter here"
    assert not out.exists() and not left_behind(tmp_path)


def test_what_is_no_lora_is_named_in_its_place(tiny_sd15, tmp_path):
    out = tmp_path / "out.safetensors"
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "e.safetensors")
    save_file({"lllite_unet_x.down.0.weight": torch.ones(2, 2)}, tmp_path / "l.safetensors")
    save_file({"something": torch.ones(2)}, tmp_path / "s.safetensors")
    for name, word in (("e", "textual inversion"), ("l", "LLLite"), ("s", "unknown kind")):
        with pytest.raises(AtelierError, match=word):
            resize(Resize(tmp_path / f"{name}.safetensors", out))
    assert not out.exists()
