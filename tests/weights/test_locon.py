"""Extraction in LyCORIS' forms: whole differences, kernels with a core, sparse remainders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.errors import InputError
from backend.weights import extract, locon, merge_into
from backend.weights.extract import Extract
from backend.weights.merge_into import MergeInto
from backend.weights.networkfile import open_network
from backend.weights.svd import of_matrix
from tests.conftest import ROOT
from tests.weights.weights_kit import CONV, Q, make_lora, metadata_of, tensors_of

NORM = "model.diffusion_model.input_blocks.1.0.in_layers.0"
Q_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONV_KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"


@pytest.fixture(scope="module")
def tuned(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Changed by a LoRA of rank 3, and in a norm layer, a bias and a kernel beyond any low rank."""
    folder = tmp_path_factory.mktemp("tuned")
    lora = make_lora(folder / "a.safetensors", 3, 3, seed=5)
    merge_into.run(MergeInto(tiny_sd15, [lora], [1.0], folder / "m.safetensors", save_precision="float"))
    tensors, draw = load_file(folder / "m.safetensors"), torch.Generator().manual_seed(1)
    for key in (f"{NORM}.weight", f"{NORM}.bias", CONV_KEY):
        tensors[key] = tensors[key] + torch.randn(tensors[key].shape, generator=draw)
    path = folder / "tuned.safetensors"
    save_file(tensors, path, metadata_of(tiny_sd15))
    return path


def merged(base: Path, network: Path, folder: Path) -> dict[str, Tensor]:
    merge_into.run(
        MergeInto(base, [network], [1.0], folder / "back.safetensors", save_precision="float", overwrite=True)
    )
    return tensors_of(folder / "back.safetensors")


def test_the_full_mode_gives_the_model_back(tiny_sd15: Path, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "full.safetensors"
    extract.run(Extract(tiny_sd15, tuned, out, mode="full", save_precision="float"))
    kinds = {name.rpartition(".")[2] for name in tensors_of(out)}
    assert kinds == {"diff", "w_norm", "b_norm"}
    found, wanted = merged(tiny_sd15, out, tmp_path), tensors_of(tuned)
    for key in (Q_KEY, CONV_KEY, f"{NORM}.weight", f"{NORM}.bias"):
        assert torch.allclose(found[key], wanted[key].float(), atol=1e-5), key


def test_a_core_makes_a_smaller_file_of_the_same_kernel(tiny_sd15: Path, tuned: Path, tmp_path: Path) -> None:
    plain, cored = tmp_path / "plain.safetensors", tmp_path / "cored.safetensors"
    for out, core in ((plain, False), (cored, True)):
        report = extract.run(Extract(tiny_sd15, tuned, out, 4, 4, clamp_quantile=1.0, core=core))
        error = next(part.error for part in report.kept if part.name == CONV)
        difference = tensors_of(tuned)[CONV_KEY].float() - tensors_of(tiny_sd15)[CONV_KEY].float()
        back = merged(tiny_sd15, out, tmp_path)[CONV_KEY] - tensors_of(tiny_sd15)[CONV_KEY].float()
        assert float((back - difference).norm() / difference.norm()) == pytest.approx(error, abs=1e-3)
    assert open_network(cored).modules[CONV].keys() >= {"lora_mid.weight"}
    assert "lora_mid.weight" not in open_network(cored).modules[Q]
    assert cored.stat().st_size < plain.stat().st_size


@pytest.mark.parametrize(("inputs", "rank"), [(6, 3), (2, 3)])
def test_a_kernel_of_low_rank_loses_nothing_by_its_core(inputs: int, rank: int) -> None:
    """A Tucker decomposition of the ranks that a kernel has is exact, also with few inputs."""
    draw = torch.Generator().manual_seed(2)
    low = min(inputs, rank)
    thin, core = torch.randn(low, inputs, generator=draw), torch.randn(rank, low, 9, generator=draw)
    kernel = torch.einsum("or,rsk,si->oik", torch.randn(8, rank, generator=draw), core, thin).flatten(1)
    found = of_matrix(kernel, rank, exact=True)
    up, down = found.u[:, :rank] * found.s[:rank], found.vh[:rank]
    tensors, made = locon.cored("m", up, down, (8, inputs, 3, 3))
    assert torch.allclose(made, kernel, atol=1e-4)
    assert tensors["lora_m.lora_mid.weight"].shape == (rank, rank, 3, 3)


def test_what_a_pair_leaves_out_stands_beside_it(tiny_sd15: Path, tuned: Path, tmp_path: Path) -> None:
    errors = {}
    for sparsity in (None, 0.9, 0.5, 0.0):
        out = tmp_path / f"{sparsity}.safetensors"
        job = Extract(tiny_sd15, tuned, out, 2, 2, clamp_quantile=1.0, sparsity=sparsity)
        errors[sparsity] = next(part.error for part in extract.run(job).kept if part.name == CONV)
    assert errors[None] > errors[0.9] > errors[0.5] > errors[0.0] and errors[0.0] < 1e-6
    tensors = tensors_of(tmp_path / "0.9.safetensors")
    name = f"lora_{CONV}"
    assert tensors[f"{name}.bias_indices"].dtype == tensors[f"{name}.bias_size"].dtype == torch.int16
    assert tensors[f"{name}.bias_size"].tolist() == [32, 288]
    assert tensors[f"{name}.bias_values"].numel() == round(0.1 * 32 * 288)
    found = merged(tiny_sd15, tmp_path / "0.0.safetensors", tmp_path)
    assert torch.allclose(found[CONV_KEY], tensors_of(tuned)[CONV_KEY].float(), atol=1e-4)


def test_a_remainder_of_another_shape_is_refused(tiny_sd15: Path, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    extract.run(Extract(tiny_sd15, tuned, out, 2, sparsity=0.9))
    tensors = tensors_of(out)
    tensors[f"lora_{Q}.bias_size"] = torch.tensor([32, 31], dtype=torch.int16)
    save_file(tensors, out)
    with pytest.raises(InputError, match="does not fit its pair"):
        open_network(out)


def test_a_layer_that_a_pair_does_not_make_smaller_keeps_its_difference(
    tiny_sd15: Path, tuned: Path, tmp_path: Path
) -> None:
    job = Extract(tiny_sd15, tuned, tmp_path / "w.safetensors", 4, 16, whole_where_smaller=True)
    extract.run(job)
    modules = open_network(job.save_to).modules
    assert modules[CONV].keys() == {"diff"} and "lora_up.weight" in modules[Q]


def test_the_tool_has_lycoris_options(tiny_sd15: Path, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "tool.safetensors"
    command = [
        tiny_sd15,
        tuned,
        out,
        "--mode",
        "fixed",
        "--linear_dim",
        "2",
        "--conv_dim",
        "2",
        "--use_sparse_bias",
    ]
    done = subprocess.run(
        [sys.executable, "tools/lycoris_locon_extract.py", *map(str, command)], cwd=ROOT, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = {name.partition(".")[2] for name in tensors_of(out)}
    assert {"lora_mid.weight", "bias_values", "lora_up.weight", "alpha"} <= parts
