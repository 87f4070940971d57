"""One row for each kind of network and the arguments that change what it is made of."""

from __future__ import annotations

from backend.networks import NetworkSpec

LYCORIS = "lycoris.kohya"


def lycoris(
    algo: str, dim: int = 4, alpha: float = 2, conv: int | None = 2, **args: str
) -> tuple[str, NetworkSpec]:
    sized = algo not in ("ia3", "full", "norm")
    spec = NetworkSpec(
        dim=dim,
        alpha=alpha,
        conv_dim=conv if sized else None,
        conv_alpha=1 if sized and algo not in ("diag-oft", "boft") else None,
        args={"algo": algo, **args},
    )
    return LYCORIS, spec


KINDS: dict[str, tuple[str, NetworkSpec]] = {
    "lora": ("networks.lora", NetworkSpec(dim=4, alpha=2, conv_dim=2, dropout=0.1, rank_dropout=0.1)),
    "lora dora": ("networks.lora", NetworkSpec(dim=4, alpha=2, conv_dim=2, args={"dora_wd": "True"})),
    "lora rslora": ("networks.lora", NetworkSpec(dim=4, alpha=2, args={"use_rslora": "True"})),
    "lora_fa": ("networks.lora_fa", NetworkSpec(dim=4, alpha=2, conv_dim=2)),
    "dylora": ("networks.dylora", NetworkSpec(dim=4, alpha=2, conv_dim=4, args={"unit": "2"})),
    "oft": (
        "networks.oft",
        NetworkSpec(dim=4, alpha=0.01, args={"enable_all_linear": "1", "enable_conv": "1"}),
    ),
    "locon": lycoris("locon"),
    "locon tucker": lycoris("locon", use_tucker="True", rank_dropout="0.1"),
    "locon dora": lycoris("locon", dora_wd="True", use_tucker="True", bypass_mode="True"),
    "locon scalar": lycoris("locon", use_scalar="True", rs_lora="True"),
    "loha": lycoris("loha", rank_dropout="0.1", rank_dropout_scale="True"),
    "loha tucker": lycoris("loha", use_cp="True", dora_wd="True", wd_on_output="False"),
    "lokr": lycoris("lokr", factor="4", module_dropout="0.1"),
    "lokr thin": lycoris("lokr", dim=1, conv=1, factor="8", decompose_both="True", use_tucker="True"),
    "lokr whole": lycoris("lokr", full_matrix="True", use_scalar="True"),
    "ia3": lycoris("ia3", preset="ia3"),
    "ia3 on inputs": lycoris("ia3", preset="attn-mlp", train_on_input="True"),
    "lycoris dylora": lycoris("dylora", conv=4, block_size="2"),
    "diag-oft": lycoris("diag-oft", constraint="0.01", rescaled="True"),
    "boft": lycoris("boft", dim=8, conv=8, preset="unet-transformer-only", bypass_mode="True"),
    "glora": lycoris("glora"),
    "full": lycoris("full", preset="attn-mlp"),
    "norm": lycoris("norm"),
    "locon and norm": lycoris("locon", train_norm="True"),
}
