"""What LyCORIS' extraction makes of a layer's difference: a pair, a pair with a core, or all of it.

After LyCORIS (Yeh et al. 2023, arXiv:2309.14859): kernels are split once more, into a thin part and a
core; what the pair leaves out may stand beside it as a sparse matrix; and where a pair would save nothing,
the difference itself is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from backend.weights.output import pair_tensors
from backend.weights.svd import of_matrix

_INT16 = torch.iinfo(torch.int16).max


def saves_nothing(rank: int, outputs: int) -> bool:
    """Whether a pair of this rank is about as large as what it stands for, by LyCORIS' rule."""
    return 2 * rank >= outputs


def cored(name: str, up: Tensor, down: Tensor, shape: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
    """A pair for a kernel with its ``down`` split into a 1x1 and a core, and the matrix that they make.

    Args:
        up: (out, r). down: (r, in * k * k). shape: (out, in, k, k).

    Returns:
        ``lora_up`` (out, r, 1, 1), ``lora_mid`` (r, r, k, k), ``lora_down`` (r, in, 1, 1), ``alpha`` = r;
        and their product (out, in * k * k).
    """
    rank, (_, inputs, *kernel) = up.shape[1], shape
    by_input = down.reshape(rank, inputs, -1).transpose(0, 1)
    least = min(rank, inputs)
    found = of_matrix(by_input.flatten(1), least, exact=True)
    thin = found.vh[:least].reshape(least, rank, -1).transpose(0, 1)
    wide = (found.u[:, :least] * found.s[:least]).T
    if least < rank:  # the file's reader takes the core for square
        thin = torch.cat([thin, thin.new_zeros(rank, rank - least, thin.shape[2])], 1)
        wide = torch.cat([wide, wide.new_zeros(rank - least, inputs)])
    tensors = {
        f"lora_{name}.lora_up.weight": up.reshape(*up.shape, 1, 1).cpu(),
        f"lora_{name}.lora_mid.weight": thin.reshape(rank, rank, *kernel).cpu(),
        f"lora_{name}.lora_down.weight": wide.reshape(rank, inputs, 1, 1).cpu(),
        f"lora_{name}.alpha": torch.tensor(float(rank)),
    }
    whole = torch.einsum("or,rsk,si->oik", up, thin, wide)
    return tensors, whole.flatten(1)


def paired(
    name: str, up: Tensor, down: Tensor, shape: Sequence[int], *, core: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """A pair, with a core where that is wanted and the weight is a kernel; and the matrix that it makes."""
    if core and len(shape) == 4 and tuple(shape[2:]) != (1, 1):
        return cored(name, up, down, shape)
    return pair_tensors(name, up, down, up.shape[1], shape), up @ down


def sparse(name: str, rest: Tensor, sparsity: float) -> dict[str, Tensor]:
    """The largest numbers of what is left, all but the share ``sparsity``: places, values and size.

    Nothing for matrices with a side that 16 bits, in which the places stand, cannot count.
    """
    if max(rest.shape) > _INT16:
        return {}
    sizes = rest.abs().flatten()
    kept = max(1, round((1 - sparsity) * sizes.numel()))
    places = sizes.topk(kept).indices.sort().values
    indices = torch.stack([places // rest.shape[1], places % rest.shape[1]])
    return {
        f"lora_{name}.bias_indices": indices.to(torch.int16).cpu(),
        f"lora_{name}.bias_values": rest.flatten()[places].cpu(),
        f"lora_{name}.bias_size": torch.tensor(rest.shape, dtype=torch.int16),
    }


def dense(name: str, parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """What :func:`sparse` kept, as a matrix like the one it was given."""
    found = torch.zeros_like(like)
    if parts:
        rows, columns = parts[f"lora_{name}.bias_indices"].long().to(like.device)
        found[rows, columns] = parts[f"lora_{name}.bias_values"].to(like)
    return found


def whole(name: str, difference: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
    """The difference itself, of the weight and of the bias."""
    if difference.dim() == 1:
        parts = {"w_norm": difference, "b_norm": bias}
    else:
        parts = {"diff": difference, "diff_b": bias}
    return {f"lora_{name}.{part}": value.cpu() for part, value in parts.items() if value is not None}
