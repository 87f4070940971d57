"""Command lines of sd-scripts' trainers, as people keep them in notes and batch files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from backend.errors import InputError
from backend.settings.abbreviations import whole_name
from backend.settings.declare import declarations
from backend.settings.imports.report import Imported, Sheet, by_declaration, is_blank
from backend.settings.methods import METHODS

_LAUNCH = {"num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port", "gpu_ids",
           "num_cpu_threads_per_process", "dynamo_backend", "dynamo_mode", "mixed_precision"}  # fmt: skip
"""Options of accelerate's launcher that are options of a run here."""

_METHODS = {tool: name for name, method in METHODS.items() for tool in method.tools.values()}
"""Script -> training method; sd-scripts' and our names are the same."""


def import_command(text: str) -> Imported:
    """Settings out of a command line: ``accelerate launch ... train_network.py --option value ...``.

    Raises:
        InputError: it is none, or a quotation mark is not closed.
    """
    joined = re.sub(r"[\\^`]\s*\r?\n", " ", text)
    try:
        words = shlex.split(joined.replace("\\", "\\\\") if _windows(joined) else joined)
    except ValueError as error:
        raise InputError("the command line cannot be read", why=str(error)) from None
    script = next((at for at, word in enumerate(words) if word.endswith(".py")), -1)
    sheet = Sheet()
    method = _METHODS.get(PurePath(words[script].replace("\\", "/")).name) if script >= 0 else None
    if method:
        sheet.values["training_method"] = method
    _launcher(sheet, words[: max(script, 0)])
    take_words(sheet, words[script + 1 :])
    if not sheet.entries:
        raise InputError(
            "no option was found", next="paste a whole command, with options like --network_dim 16"
        )
    return sheet.finish("command line")


def take_words(sheet: Sheet, words: Sequence[str]) -> None:
    """Enter ``--key value`` words; what was there before gives way, as it does on a command line."""
    pairs = ((whole_name(key), values) for key, values in _pairs(words))
    found = {key: _value(key, values) for key, values in pairs}
    for key in by_declaration(found):
        sheet.values.pop(key, None)
        sheet.dialect(key, found[key])


def _launcher(sheet: Sheet, words: Sequence[str]) -> None:
    for key, values in _pairs(words):
        if key in _LAUNCH and not is_blank(_value(key, values)):
            sheet.dialect(key, _value(key, values))
        else:
            sheet.idle(key, " ".join(values), "the launcher needs nothing more")


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    key, values = "", list[str]()
    for word in words:
        if word.startswith("--"):
            if key:
                yield key, values
            key, equals, value = word[2:].partition("=")
            values = [value] if equals else []
        elif key:
            values.append(word)
    if key:
        yield key, values


def _value(key: str, values: list[str]) -> Any:
    """A switch alone is on; a list stays one."""
    declared = declarations().get(key)
    if (declared is not None and declared.kind == "textlist") or key in ("network_args", "optimizer_args"):
        return values
    if not values:
        return True
    return values[0] if len(values) == 1 else values


def _windows(text: str) -> bool:
    """Backslashes that are part of paths."""
    return bool(re.search(r"\b[A-Za-z]:\\|\\\w+\\\w+", text))
