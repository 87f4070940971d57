"""Words that a model is taught: from textual inversions to what its tokenizers and text encoders read."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.families.parts.words import Words
from backend.networks.embedding_files import in_folder, read_embedding, require_fit
from backend.networks.embeddings import Embedding, NewWords, rows_by_layer, spans


def make_words(model: DiffusionModel, words: Mapping[str, Embedding]) -> tuple[NewWords, Words]:
    """The vectors of ``words`` for the model's text encoders, not yet attached, and what its
    tokenizers have to know then: what they knew before and the new words."""
    tables, before = model.word_tables(), model.words
    first = max(before.end, *(table.module.num_embeddings for table in tables))
    places = spans(list(words.values()))
    network = NewWords(tables, list(words.values()), first)
    ids = {
        word: tuple(range(first + span.start, first + span.start + span.vectors))
        for word, span in zip(words, places, strict=True)
    }
    end = first + sum(span.vectors * span.layers for span in places)
    rows = None
    if before.rows is not None or any(embedding.layers for embedding in words.values()):
        rows = before.joined(first, rows_by_layer(places, len(model.context_layers())))
    return network, Words({**before.ids, **ids}, end, rows)


@contextmanager
def knowing(model: DiffusionModel, files: Mapping[str, Path]) -> Generator[None, None, None]:
    """The model reads the words of these files meanwhile.

    Raises:
        InputError: a file is no textual inversion, or one for another kind of model.
    """
    if not files:
        yield
        return
    network, words = make_words(model, {word: _read(model, path) for word, path in files.items()})
    before = model.words
    network.to(model.word_tables()[0].module.weight.device).requires_grad_(False)
    network.attach()
    model.use_words(words)
    try:
        yield
    finally:
        model.use_words(before)
        network.detach()


def used(folder: Path, texts: Iterable[str]) -> dict[str, Path]:
    """Word -> file, of those of a folder that stand in one of the texts.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            Problem(
                "the folder of embeddings was not found",
                where=str(folder),
                next="choose the folder that holds your textual inversions, or leave it empty",
                key="embeddings",
            )
        )
    files = in_folder(folder)
    known = Words(dict.fromkeys(files, (0,)))
    found = {word for text in texts for word in known.found_in(text)}
    return {word: path for word, path in files.items() if word in found}


def _read(model: DiffusionModel, path: Path) -> Embedding:
    embedding = read_embedding(path)
    require_fit(embedding, model.word_tables(), model.context_layers(), str(path))
    return embedding
