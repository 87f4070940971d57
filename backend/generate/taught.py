"""Textual inversions of a folder, put to a model when a prompt names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch import nn

from backend.families.base import DiffusionModel
from backend.generate import words
from backend.generate.modes import device_of
from backend.networks.embedding_files import read_embedding, require_fit
from backend.networks.embeddings import Embedding, NewWords


class TaughtWords:
    """The words that a model reads beside those it came with. One for a model."""

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model
        self._before = model.words
        self._known: dict[str, Path] = {}
        self._network: NewWords | None = None

    def use(self, folder: str, texts: Sequence[str]) -> None:
        """Read the words of the folder's files in ``texts`` from now on, and no others.

        Raises:
            InputError: there is no such folder, a file is no textual inversion, or for another kind of
                model.
        """
        wanted = words.used(Path(folder), texts) if folder and any(texts) else {}
        if wanted == self._known:
            return
        self._forget()
        if not wanted:
            return
        network, known = words.make_words(
            self._model, {word: self._read(path) for word, path in wanted.items()}
        )
        cast("nn.Module", network).to(device_of(self._model)).requires_grad_(False)
        network.attach()
        self._model.use_words(known)
        self._network, self._known = network, wanted

    def _forget(self) -> None:
        if self._network is not None:
            self._network.detach()
            self._model.use_words(self._before)
        self._network, self._known = None, {}

    def _read(self, path: Path) -> Embedding:
        embedding = read_embedding(path)
        require_fit(
            embedding, self._model.word_tables(), self._model.context_layers(), str(path), "embeddings"
        )
        return embedding
