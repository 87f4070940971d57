"""Files on a grid's axis: what they are, and how one of them acts in a cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from backend.errors import InputError, Problem
from backend.generate.request import Guide, LoraUse, Request

FileKind = Literal["", "lora", "base", "embedding", "lllite"]
_SPECIAL: Mapping[str, FileKind] = {"base": "base", "embedding": "embedding", "lllite": "lllite"}
WITH_STRENGTH: frozenset[FileKind] = frozenset(("lora", "lllite"))
"""Kinds that act more or less strongly."""
_TIME = re.compile(r"-(?:step)?\d{6,}$")
"""What a training puts behind the name of a file that is not its last."""


def kind_of(files: Sequence[str]) -> FileKind:
    """What the files are, '' for none. Files of no kind that is known here count as networks.

    Raises:
        InputError: they are of two kinds, or one cannot be read.
    """
    from backend.system.identify import identify

    kinds: dict[FileKind, str] = {}
    for file in files:
        kinds.setdefault(_SPECIAL.get(identify(file).kind, "lora"), file)
    if len(kinds) > 1:
        names = " and ".join(Path(file).name for file in kinds.values())
        raise InputError(
            f"files of different kinds stand on one axis: {names}",
            next="Put files of one kind on it.",
            key="axes",
        )
    return next(iter(kinds)) if kinds else ""


def lacks(kind: FileKind, files: Sequence[str], request: Request, prompts: Iterable[str]) -> list[Problem]:
    """What a cell needs beside its file and has not: the word in the prompt, or a picture to follow."""
    if kind == "lllite" and not request.guides:
        advice = "Add a guide with its picture to the form; the files take its place in turn."
        return [Problem("LLLite files on an axis need a guide picture", next=advice, key="axes")]
    if kind != "embedding":
        return []
    words = " or ".join(f"'{word}'" for word in _words(files))
    missing = [prompt for prompt in prompts if not _pattern(files).search(prompt)]
    advice = "Put the word where what it was taught is to be seen; each cell reads it from its own file."
    return [
        Problem(f"the prompt does not have the word {words}", where=prompt[:80], next=advice, key="prompt")
        for prompt in missing
    ]


def acting(request: Request, kind: FileKind, file: str, files: Sequence[str]) -> Request:
    """The request with one of ``files`` in its place: first of the networks, that of the first guide, or
    the one that the prompt's word is read from."""
    match kind:
        case "lora":
            return replace(request, loras=(LoraUse(file), *request.loras))
        case "lllite":
            return replace(request, guides=(replace(request.guides[0], path=file), *request.guides[1:]))
        case "embedding":
            stem = Path(file).stem
            words = _pattern(files).sub(lambda _: stem, request.prompt)
            return replace(request, prompt=words, embeddings=str(Path(file).parent))
        case _:
            return request


def at_strength(request: Request, kind: FileKind, strength: float) -> Request:
    """The file of the axis, or the first network of the request, acts so strongly."""
    if kind == "lllite":
        first: Guide = replace(request.guides[0], strength=strength)
        return replace(request, guides=(first, *request.guides[1:]))
    if not request.loras:
        return request
    return replace(request, loras=(LoraUse(request.loras[0].path, strength), *request.loras[1:]))


def taught_word(file: Path) -> str:
    """The word that a textual inversion was taught: its name without step and epoch."""
    return _TIME.sub("", file.stem)


def _words(files: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(taught_word(Path(file)) for file in files))


def _pattern(files: Sequence[str]) -> re.Pattern[str]:
    """Finds those words, and the files' own names, where they are no part of longer ones."""
    names = {*_words(files), *(Path(file).stem for file in files)}
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    return re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", re.IGNORECASE)
