"""What each kind of network costs in a training step against plain LoRA, as one line of JSON.

One transformer block's layers (width 320, as in SD 1.5), forward and backward
in float32. Numbers are medians; ``times`` is the time over that of plain LoRA.

    python tools/bench_networks.py --tokens 1024 --batch 1 --repeats 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from backend.errors import run_main
from backend.networks import NetworkSpec, create

KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "lora": ("networks.lora", {}),
    "lora dora": ("networks.lora", {"dora_wd": "True"}),
    "lora_fa": ("networks.lora_fa", {}),
    "dylora": ("networks.dylora", {"unit": "4"}),
    "oft": ("networks.oft", {"enable_all_linear": "True"}),
    "loha": ("lycoris.kohya", {"algo": "loha"}),
    "lokr": ("lycoris.kohya", {"algo": "lokr", "factor": "8"}),
    "lokr bypass": ("lycoris.kohya", {"algo": "lokr", "factor": "8", "bypass_mode": "True"}),
    "ia3": ("lycoris.kohya", {"algo": "ia3"}),
    "diag-oft": ("lycoris.kohya", {"algo": "diag-oft"}),
    "boft": ("lycoris.kohya", {"algo": "boft"}),
    "glora": ("lycoris.kohya", {"algo": "glora"}),
    "full": ("lycoris.kohya", {"algo": "full"}),
}


class Site(NamedTuple):
    name: str
    part: str
    container: str
    module: nn.Module


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of one picture; a square number")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if min(options.width, options.tokens, options.batch, options.rank, options.repeats) < 1:
        parser.error("all numbers have to be 1 or more")
    sites, layers = block(options.width)
    side = round(options.tokens**0.5)
    inputs = torch.randn(options.batch, side * side, options.width)
    plain = measure(layers, inputs, None, options.repeats)
    found: dict[str, dict[str, float]] = {}
    for name, (module, arguments) in KINDS.items():
        network = create(module, sites, NetworkSpec(dim=options.rank, alpha=options.rank, args=arguments))
        assert isinstance(network, nn.Module)
        network.train().attach()
        seconds = measure(layers, inputs, network, options.repeats)
        network.detach()
        count = sum(p.numel() for p in network.parameters())
        found[name] = {"ms": round(1000 * seconds, 2), "parameters": count}
    for row in found.values():
        row["times"] = round(row["ms"] / found["lora"]["ms"], 2)
    report = {"plain_ms": round(1000 * plain, 2), **vars(options), "kinds": found}
    print(json.dumps(report))


def block(width: int) -> tuple[list[Site], list[nn.Linear]]:
    """Frozen layers, each as wide as the next needs."""
    torch.manual_seed(0)
    names = ["attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0", "attn2_to_q", "attn2_to_out_0"]
    sizes = [(width, width)] * len(names) + [(width, 4 * width), (4 * width, width)]
    names += ["ff_net_0_proj", "ff_net_2"]
    layers = [nn.Linear(*size).requires_grad_(False) for size in sizes]
    root = "unet_down_blocks_0_attentions_0_transformer_blocks_0"
    return [Site(f"{root}_{n}", "unet", "attention", m) for n, m in zip(names, layers, strict=True)], layers


def measure(layers: list[nn.Linear], inputs: torch.Tensor, network: nn.Module | None, repeats: int) -> float:
    """Median seconds of forward and backward."""
    times: list[float] = []
    for turn in range(repeats + 2):
        started = time.perf_counter()
        hidden = inputs.requires_grad_(True)
        for layer in layers:
            hidden = layer(hidden)
        hidden.square().mean().backward()
        if turn >= 2:
            times.append(time.perf_counter() - started)
        inputs.grad = None
        if network is not None:
            network.zero_grad(set_to_none=True)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(run_main(main))
