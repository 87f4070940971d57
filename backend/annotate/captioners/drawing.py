"""Drawing tokens by chance, with randomness that belongs to a picture and not to its batch.

Adding independent Gumbel noise to log-probabilities and taking the largest draws from exactly that
distribution (Gumbel-max; Maddison et al. 2014, arXiv:1411.0030). So ``generate`` is told to take the largest,
and the noise is keyed by seed, picture and position: batch size and order change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backend import keyed


class Drawing:
    """A logits processor for ``generate`` with ``do_sample=False``: nucleus sampling of one token a row.

    Top p keeps the smallest set of likeliest tokens whose probability reaches ``top_p`` (Holtzman et al.
    2019, arXiv:1904.09751).
    """

    def __init__(self, seed: int, names: Sequence[str], top_p: float, temperature: float) -> None:
        self._seed, self._names = seed, list(names)
        self._top_p, self._temperature = top_p, temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (pictures, tokens) with noise on the tokens that may be drawn, the others at -inf."""
        logits = scores.float() / self._temperature
        ordered, order = logits.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        outside = shares.cumsum(-1) - shares >= self._top_p
        logits = logits.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
        position = input_ids.shape[1]
        noise = torch.stack([self._noise(name, position, scores.shape[1]) for name in self._names])
        return logits + noise.to(scores.device)

    def _noise(self, name: str, position: int, size: int) -> torch.Tensor:
        generator = keyed.generator(self._seed, "caption", name, position)
        # Not below the smallest numbers, so that both logarithms stay finite.
        uniform = torch.rand(size, generator=generator).clamp_min(1e-20)
        return -(-uniform.log()).clamp_min(1e-20).log()
