"""Files of LyCORIS kinds have the effect that LyCORIS gives them.

The reference holds, for single layers, the tensors of a LyCORIS file and the output of LyCORIS'
own forward (lycoris-lora 4.1.3, CPU, float32, eval mode, seeded random values). Where LyCORIS'
merge and forward disagree, the forward counts.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from backend.networks import create, from_weights
from backend.networks.base import NetworkSpec
from tests.conftest import ROOT
from tests.networks.conftest import Site

REFERENCE = load_file(ROOT / "tests/golden/lycoris_kinds.safetensors")
CASES = sorted({key.rsplit("/", 1)[0] for key in REFERENCE if key.count("/") == 2})


def layer(kind: str) -> nn.Module:
    module: nn.Module = {
        "linear": lambda: nn.Linear(12, 16),
        "conv": lambda: nn.Conv2d(4, 8, 3, padding=1),
        "layernorm": lambda: nn.LayerNorm(12),
        "groupnorm": lambda: nn.GroupNorm(2, 4),
    }[kind]()
    module.load_state_dict({part: REFERENCE[f"{kind}/{part}"] for part in ("weight", "bias")})
    return module.requires_grad_(False)


def file_of(case: str) -> dict[str, torch.Tensor]:
    parts = {key.rsplit("/", 1)[1]: t for key, t in REFERENCE.items() if key.rsplit("/", 1)[0] == case}
    return {f"lora_unet_x.{part}": tensor for part, tensor in parts.items() if part != "out"}


def test_there_are_cases_of_every_kind():
    kinds = {case.split("/")[1].split(",")[0] for case in CASES}
    assert kinds == {"locon", "loha", "lokr", "ia3", "diag-oft", "boft", "glora", "full", "norm"}
    assert len(CASES) == 52


@pytest.mark.parametrize("case", CASES)
def test_output_is_that_of_lycoris(case):
    kind = case.split("/")[0]
    module, x = layer(kind), REFERENCE[f"{kind}/x"]
    plain = module(x)
    network = from_weights(file_of(case), [Site("unet_x", "unet", "attention", module)])
    assert network.unused == ()
    network.attach()
    live = module(x)
    network.detach()
    torch.testing.assert_close(live, REFERENCE[f"{case}/out"], atol=2e-6, rtol=1e-5)
    assert (live - plain).abs().max() > 1e-3
    network.merge()
    torch.testing.assert_close(module(x), live, atol=1e-5, rtol=1e-5)


ARGUMENTS = {"weight_decompose": "dora_wd", "wd_on_out": "wd_on_output"}


@pytest.mark.parametrize("case", [c for c in CASES if "train_on_input" not in c and "norm" not in c])
def test_a_new_network_has_the_names_and_shapes_of_lycoris(case):
    kind, text = case.split("/")
    algo, *pairs = text.split(",")
    values = dict(pair.split("=") for pair in pairs)
    dim = int(values.pop("dim", 2))
    args = {"algo": algo, **{ARGUMENTS.get(key, key): value for key, value in values.items()}}
    spec = (
        NetworkSpec(dim=dim, alpha=1.0, args=args) if algo not in ("ia3", "full") else NetworkSpec(args=args)
    )
    made = create("lycoris.kohya", [Site("unet_x", "unet", "attention", layer(kind))], spec).file_weights()
    assert {n: t.shape for n, t in made.items()} == {n: t.shape for n, t in file_of(case).items()}
    for part in ("alpha", "on_input"):
        name = f"lora_unet_x.{part}"
        if name in made:
            assert float(made[name]) == pytest.approx(float(file_of(case)[name]))
