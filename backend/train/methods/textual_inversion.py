"""Training a word (Gal et al. 2022): a few vectors of the text encoders' tables, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from backend import keyed
from backend.data.types import DatasetPlan
from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel, WordTable
from backend.generate.words import make_words
from backend.networks.embedding_files import file_tensors, read_embedding, require_fit
from backend.networks.embeddings import Embedding, NewWords
from backend.settings import Settings
from backend.train import provenance
from backend.train.methods.beside import Beside, write_tensors
from backend.train.methods.network import DTYPES
from backend.train.provenance import TrainingFacts


class TextualInversionMethod(Beside[NewWords]):
    """Teaches the model's text encoders one word."""

    misfit: ClassVar[Problem] = Problem(
        "the restore point does not fit this word",
        why="the number of vectors or the kind of base model was changed since it was made",
        next="put them back, or start anew with its file as weights",
        key="num_vectors_per_token",
    )

    def __init__(self, settings: Settings, plan: DatasetPlan, model: DiffusionModel, seed: int) -> None:
        section = settings.word
        assert section.token_string, "checked by the rules between options"
        self.settings, self.plan, self.model = settings, plan, model
        self.word = section.token_string
        self.layers = model.context_layers() if section.xti else ()
        self.rates = {table.part: settings.optimizer.learning_rate for table in model.word_tables()}
        self._notes: list[Problem] = []
        self.network, self._words = make_words(model, {self.word: self._first(seed)})
        self.trainable = self.network
        vectors = f"{section.num_vectors_per_token} vector{'s' * (section.num_vectors_per_token > 1)}"
        each = f" for each of {len(self.layers)} layers" if self.layers else ""
        self.title = f"Textual inversion '{self.word}', {vectors}{each}"

    @property
    def trains_text(self) -> bool:
        return True

    def start(self) -> list[Problem]:
        self.network.attach()
        self.model.use_words(self._words)
        self.trainable.train()
        return self._notes

    def save(self, path: Path, facts: TrainingFacts) -> None:
        dtype = DTYPES.get(self.settings.saving.save_precision or "", torch.float32)
        vectors = file_tensors(Embedding(self.network.tables(), self.layers))
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in vectors.items()}
        metadata = provenance.model_metadata(
            self.settings, self.plan, facts, "/textual-inversion", "TextualInversion"
        )
        write_tensors(path, tensors, {"modelspec.trigger_phrase": self.word, **metadata})

    def _first(self, seed: int) -> Embedding:
        """The vectors to begin with: a file's, those of known words, or ones drawn by chance."""
        section, tables = self.settings.word, self.model.word_tables()
        if section.weights:
            return self._from_file(Path(section.weights).expanduser())
        times = section.num_vectors_per_token * max(1, len(self.layers))
        return Embedding(
            {table.name: self._rows(table, seed, section.num_vectors_per_token).repeat(
                times // section.num_vectors_per_token, 1) for table in tables},
            self.layers,
        )  # fmt: skip

    def _rows(self, table: WordTable, seed: int, count: int) -> Tensor:
        """(count, width) float32: the vectors of ``init_word``, from the first on and again, or numbers
        as the table's own."""
        weight, word = table.module.weight.detach(), self.settings.word.init_word
        if weight.is_meta:
            return torch.zeros(count, weight.shape[1])
        if not word:
            known = weight.float().cpu()
            draw = keyed.generator(seed, "word", table.part)
            noise = torch.randn(count, weight.shape[1], generator=draw)
            return known.mean(dim=0) + noise * known.std(dim=0)
        ids = self._init_ids(word)
        return weight[[ids[index % len(ids)] for index in range(count)]].float().cpu()

    def _init_ids(self, word: str) -> list[int]:
        """Ids of the words that it begins as; says when they are not as many as vectors."""
        count = self.model.token_count(word)
        chunk = next(iter(self.model.tokenize([word]).values()))[0, 0]
        ids: list[int] = chunk[1 : 1 + count].tolist()
        wanted = self.settings.word.num_vectors_per_token
        if not ids:
            raise InputError(
                f"init_word '{word}' is no word that the model knows",
                next="write a word such as cat, or leave it out",
                key="init_word",
            )
        if len(ids) != wanted and not self._notes:
            done = "the rest is not used" if len(ids) > wanted else "they are used again from the first"
            text = f"init_word '{word}' has {len(ids)} tokens for {wanted} vectors: {done}"
            self._notes.append(Problem(text, key="init_word"))
        return ids

    def _from_file(self, path: Path) -> Embedding:
        """The vectors of a file to go on from.

        Raises:
            InputError: it is for another kind of model, or has other vectors than are asked for.
        """
        found, wanted = read_embedding(path), self.settings.word.num_vectors_per_token
        require_fit(found, self.model.word_tables(), self.model.context_layers(), str(path), "weights")
        if (found.vectors, bool(found.layers)) != (wanted, bool(self.layers)):
            kind = "for each layer" if found.layers else "for all layers"
            raise InputError(
                f"the file to start from has {found.vectors} vectors {kind}",
                where=str(path),
                why=f"{wanted} {'for each layer' if self.layers else 'for all layers'} are asked for",
                next=f"set num_vectors_per_token to {found.vectors}, and xti "
                + ("on" if found.layers else "off"),
                key="weights",
            )
        return found
