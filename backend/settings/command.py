"""The command line, read off the declarations.

Options are written as sd-scripts' are: ``--key value``, ``--key=value``, a switch as ``--key``
alone or ``--key=false``, a list as ``--key a b c``, and a name may be cut short while it is no
other option's beginning.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.errors import InputError, Problem
from backend.settings.abbreviations import begun, whole_name
from backend.settings.check import judge
from backend.settings.declare import SECTIONS, Declared, declarations
from backend.settings.dialect import ABSENT, NEEDS_NOTHING, RENAMED, Translated, translate, unknown
from backend.settings.methods import METHODS, tool_of
from backend.settings.paths import check_files
from backend.settings.secrets import without_secrets
from backend.settings.settings import DEFAULTS, Reading, Settings, read_own
from backend.settings.tomlfile import Flat, read_flat

PLACE = "command line"


@dataclass(frozen=True)
class Actions:
    """What is to be done in place of training."""

    output_config: Path | None = None
    """Write the settings to this file, which does not exist yet."""
    dry_run: bool = False
    """Check everything and tell the plan."""
    json: bool = False
    """... as JSON."""


_METHOD = "training_method"
_ACTIONS = ("output_config", "dry_run", "json")


@dataclass(frozen=True)
class ParsedCommand:
    """What a command line says, free of errors."""

    settings: Settings
    notes: tuple[Problem, ...]
    """What was read otherwise than it is written. What follows from rules is told by ``check``."""
    given: frozenset[str] = frozenset()
    """Options that stand on the line or in its file."""
    actions: Actions = Actions()


@dataclass
class _Typed:
    """Options as typed: key -> values."""

    values: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[Problem] = field(default_factory=list[Problem])


def parse_command_line(
    argv: Sequence[str],
    prog: str = "train_network.py",
    complete: bool = True,
    actions: bool = False,
    method: str = "",
) -> ParsedCommand:
    """Settings out of a command line and the ``--config_file`` it names; what is typed wins.

    With ``complete`` off, or when settings are only written, a base model and pictures may be
    missing. ``--help`` prints the options and raises SystemExit. ``actions``: ``--output_config``
    and ``--dry_run`` are known. ``method``: the training method that the script is for.

    Raises:
        InputError: everything that is wrong in the command line, the file, and between options.
    """
    if "-h" in argv or "--help" in argv:
        print(help_text(prog))
        raise SystemExit(0)
    typed = _split(argv)
    asked = _actions(typed) if actions else Actions()
    file = _config_file(typed)
    if method:
        _set_method(typed, file, method, prog)
    complete = complete and asked.output_config is None
    reading = _merge(file, typed)
    problems = [*typed.problems, *file.problems, *reading.problems]
    wrong = {problem.key for problem in problems if problem.key}
    unread = bool(file.problems and not file.values)
    verdict = judge(reading.settings, complete and not unread, ignore=wrong)
    problems += [replace(error, where=reading.where.get(error.key or "", "")) for error in verdict.errors]
    if problems:
        told = {problem.key for problem in problems}
        files = check_files(reading.settings) if complete else []
        raise InputError([*problems, *(problem for problem in files if problem.key not in told)])
    return ParsedCommand(reading.settings, tuple(reading.notes), frozenset(reading.where), asked)


def to_command_line(settings: Settings) -> list[str]:
    """The options that differ from the defaults, quoted for this system's shell; no secrets."""
    words: list[str] = []
    for key, value in without_secrets(settings).changed().items():
        if isinstance(value, list):
            words += [f"--{key}", *map(_quote, value)]
        elif value is None or isinstance(value, bool):
            words.append(f"--{key}" if value is True else f"--{key}={'false' if value is False else ''}")
        else:
            words.append(f"--{key}={_quote(str(value))}")
    return words


def _quote(text: str) -> str:
    """Quoted where needed: for cmd on Windows, for a POSIX shell elsewhere."""
    if os.name == "nt":
        return subprocess.list2cmdline([text])
    return shlex.quote(text)


def help_text(prog: str) -> str:
    """All options by section, for a terminal."""
    lines = [
        f"usage: {prog} [--config_file run.toml] [--option value ...]",
        "",
        "  --config_file FILE",
        *_wrap("A TOML file of the options below. Options that are typed win over it."),
        "  --output_config",
        *_wrap("Write the settings, without secrets, to the file that --config_file names, and end."),
        "  --dry_run",
        *_wrap("Check everything, tell what would be trained, written and needed, and end; --json as data."),
    ]
    for name, section in SECTIONS.items():
        lines += ["", f"{section.title}: {section.__doc__}"]
        for declared in declarations().values():
            if declared.section == name:
                lines += [f"  --{declared.key}{_placeholder(declared)}", *_wrap(_help(declared))]
    return "\n".join(lines)


def _split(argv: Sequence[str]) -> _Typed:
    """The words of a command line by the option they belong to. The last of equal options counts."""
    typed = _Typed()
    values: list[str] | None = None
    for word in argv:
        if not word.startswith("--"):
            if values is None:
                typed.problems.append(
                    Problem(f"'{word}' belongs to no option", where=PLACE, next=_stray_advice(word))
                )
            else:
                values.append(word)
            continue
        written, equals, value = word[2:].partition("=")
        key = whole_name(written)
        if key != written:
            typed.notes.append(Problem(f"--{written} is read as --{key}", where=PLACE, key=key))
        values = typed.values[key] = [value] if equals else []
    return typed


def _stray_advice(word: str) -> str:
    return f"options begin with two dashes: -{word}" if word.startswith("-") else ""


def _with_ending(path: Path) -> Path:
    return path if path.suffix.lower() == ".toml" else path.with_name(path.name + ".toml")


def _actions(typed: _Typed) -> Actions:
    """Take the switches that are no settings out of what was typed."""
    on: dict[str, bool] = {}
    for name in _ACTIONS:
        words = typed.values.pop(name, ["false"])
        on[name] = not words or words[0].lower() == "true"
        if len(words) > 1 or (words and words[0].lower() not in ("true", "false")):
            typed.problems.append(Problem(f"--{name} takes no value", where=PLACE, key=name))
    target = _output_config(typed) if on["output_config"] else None
    return Actions(target, on["dry_run"], on["json"])


def _output_config(typed: _Typed) -> Path | None:
    """The file to write, named by ``--config_file``, which is not read then."""
    words = typed.values.pop("config_file", [])
    if len(words) != 1 or not words[0].strip():
        advice = "add --config_file FILE"
        typed.problems.append(Problem("--output_config needs a file to write", where=PLACE, next=advice))
        return None
    path = _with_ending(Path(words[0].strip()))
    if path.exists():
        typed.problems.append(
            Problem(
                f"--output_config: {path} exists already",
                where=PLACE,
                next="give another name, or remove it yourself",
            )
        )
    return path


def _config_file(typed: _Typed) -> Flat:
    """The file that the command line names; empty when it names none."""
    if "config_file" not in typed.values:
        return Flat()
    words = typed.values.pop("config_file")
    if len(words) != 1 or not words[0].strip():
        typed.problems.append(_count_problem("config_file", words))
        return Flat()
    path = Path(words[0].strip())
    whole = _with_ending(path)
    try:
        return read_flat(path if path.is_file() and not whole.exists() else whole)
    except InputError as error:
        return Flat(problems=list(error.problems))


def _set_method(typed: _Typed, file: Flat, method: str, prog: str) -> None:
    """Train by the script's own method; another one that is written is a mistake."""
    words = typed.values.get(_METHOD, [])
    written = words[0] if words else file.values.get(_METHOD, method)
    if written != method and written in METHODS:
        typed.problems.append(
            Problem(
                f"{prog} trains {METHODS[method].what}; {_METHOD} is {written}",
                where=PLACE if words else file.where.get(_METHOD, ""),
                next=f"leave it out, or use tools/{tool_of(str(written))}",
                key=_METHOD,
            )
        )
    elif not words:
        typed.values[_METHOD] = [method]


def _merge(file: Flat, typed: _Typed) -> Reading:
    """What the file says, then what the command line says, read together."""
    first = translate(file.values, lambda key: file.where.get(key, ""))
    second = _translate_typed(typed)
    replaced = first.unpacked if "network_args" in typed.values else set[str]()
    values = {key: value for key, value in first.values.items() if key not in replaced} | second.values
    reading = read_own(values, first.where | second.where)
    notes = [*first.notes, *typed.notes, *second.notes]
    return replace(reading, notes=notes, problems=[*first.problems, *second.problems, *reading.problems])


def _translate_typed(typed: _Typed) -> Translated:
    values: dict[str, Any] = {}
    for key, words in typed.values.items():
        declared = declarations().get(key)
        if declared is None and key not in {*RENAMED, *NEEDS_NOTHING, *ABSENT}:
            typed.problems.append(_unknown(key))
        elif declared is None:
            values[key] = words[0] if len(words) == 1 else words or True
        elif declared.kind == "textlist" or (declared.info.several and words):
            values[key] = words
        elif len(words) == 1:
            values[key] = words[0]
        elif declared.kind == "bool" and not words:
            values[key] = True
        else:
            typed.problems.append(_count_problem(key, words))
    return translate(values, lambda key: PLACE)


def _unknown(key: str) -> Problem:
    """An option that nobody knows, the beginning of several, or a switch with a 'no' before it."""
    if several := begun(key):
        shown = ", ".join(f"--{name}" for name in several[:4]) + (", ..." if len(several) > 4 else "")
        return Problem(f"--{key} may mean {shown}", where=PLACE, next="write the whole name", key=key)
    if key.startswith(("no_", "no-")) and key[3:] in declarations():
        return Problem(f"unknown option --{key}", where=PLACE, next=f"write --{key[3:]}=false", key=key)
    return unknown(key, PLACE, "option")


def _count_problem(key: str, words: list[str]) -> Problem:
    if not words:
        return Problem(f"--{key} needs a value", where=PLACE, key=key)
    shown = ", ".join(f"'{word}'" for word in words[:3])
    return Problem(
        f"--{key}: expected one value, got {len(words)} ({shown}{', ...' if len(words) > 3 else ''})",
        where=PLACE,
        next="put quotes around a value with blanks in it",
        key=key,
    )


def _placeholder(declared: Declared) -> str:
    if declared.kind == "bool":
        return ""
    if declared.info.open:
        return " NAME"
    if declared.choices:
        return " {" + ",".join(map(str, declared.choices)) + "}"
    words = {
        "int": " N",
        "float": " X",
        "textlist": " KEY=VALUE ...",
        "resolution": " W[,H]",
        "steps": " N|N%",
    }
    return words.get(declared.kind, " PATH" if declared.info.path else " TEXT")


def _help(declared: Declared) -> str:
    default = DEFAULTS[declared.key]
    shown = declared.kind != "bool" and default not in (None, "", [])
    return declared.info.help + (f" [{default}]" if shown else "")


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        re.sub(r"\s+", " ", text), width=100, initial_indent=" " * 8, subsequent_indent=" " * 8
    )
