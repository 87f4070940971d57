"""Settings files: TOML with flat keys or keys under headings of any name.

sd-scripts ignores the headings of its files, and so does the reader here; the writer uses the
sections' names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import EnvironmentFault, InputError, Problem
from backend.settings.declare import SECTIONS, declarations
from backend.settings.paths import missing
from backend.settings.secrets import is_secret, without_secrets
from backend.settings.settings import Settings, read_values
from backend.wholefile import replacing

MAX_BYTES = 1_000_000
"""No settings file is larger, and parsing a much larger one would take minutes."""
HEADER = "preset"
"""A table of this name describes the file and holds no settings."""


@dataclass
class Flat:
    """The keys of a TOML file, its headings taken away."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    where: dict[str, str] = field(default_factory=dict[str, str])
    problems: list[Problem] = field(default_factory=list[Problem])
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    """The ``[preset]`` table."""


def read_toml(path: Path | str) -> Settings:
    """The settings in a file of ours or of sd-scripts; what it leaves out is at its default.

    Raises:
        InputError: the file is missing or no TOML, or all that is wrong in it, with lines.
    """
    return read_toml_with_notes(path)[0]


def read_toml_with_notes(path: Path | str) -> tuple[Settings, list[Problem]]:
    """As ``read_toml``, and what was read otherwise than it is written there."""
    flat = read_flat(Path(path))
    reading = read_values(flat.values, flat.where)
    if flat.problems or reading.problems:
        raise InputError([*flat.problems, *reading.problems])
    return reading.settings, reading.notes


def write_toml(settings: Settings, path: Path | str) -> None:
    """Write what differs from the defaults, without secrets. The old file stays until the new one is whole.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    write_checked(Path(path), to_toml(settings), settings)


def to_toml(settings: Settings, header: Mapping[str, str] | None = None) -> str:
    """What differs from the defaults as TOML, a table per section, each key with its help; no secrets."""
    import tomlkit

    document = tomlkit.document()
    if header:
        document[HEADER] = dict(header)
    changed = {key: value for key, value in settings.changed().items() if not is_secret(key)}
    for section in SECTIONS:
        keys = [key for key in changed if declarations()[key].section == section]
        if not keys:
            continue
        table = tomlkit.table()
        for key in keys:
            table.add(tomlkit.comment(declarations()[key].info.help))
            table.add(key, _item(changed[key]))
        document[section] = table
    return tomlkit.dumps(document)


def write_checked(path: Path, text: str, settings: Settings) -> None:
    """Write settings as ``text`` by way of a file beside it, which must read back as the same.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.file.write(text.encode("utf-8"))
            new.settle()
            assert read_toml(new.path) == without_secrets(settings), (
                "settings do not read back as they were written"
            )
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write to {path} ({error.strerror})", next="choose another folder"
        ) from None


def read_flat(path: Path) -> Flat:
    """All keys of a TOML file with their lines.

    Raises:
        InputError: the file cannot be read or is no TOML.
    """
    text = _read_text(path)
    found = [key for key in _keys(text) if key.table != f"[{HEADER}]"]
    doubles = list(_doubles(found, path))
    if doubles:
        raise InputError(doubles)
    flat = Flat()
    for name, value in _parse(text, path).items():
        if name == HEADER and isinstance(value, dict):
            flat.header = value
        elif isinstance(value, dict):
            _flatten(flat, name, value, path)
        else:
            flat.values[name] = value
    flat.where = dict.fromkeys(flat.values, str(path)) | {
        key.name: f"{path}, line {key.line}" for key in found
    }
    return flat


def _flatten(flat: Flat, table: str, values: Mapping[str, Any], path: Path) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            problem = Problem(
                f"[{table}.{key}]: a table inside a table",
                where=str(path),
                next="write its keys under one heading",
            )
            flat.problems.append(problem)
        else:
            flat.values[key] = value


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(missing("Settings file", path))
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"{path} is no settings file: it has {size:,} bytes",
            next="choose the .toml file with the settings",
        )
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(
            "the file is not written in UTF-8",
            where=f"{path}, line {line}",
            next="save it with the encoding UTF-8",
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror})") from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    import tomlkit
    from tomlkit.exceptions import ParseError, TOMLKitError

    try:
        return tomlkit.parse(text).unwrap()
    except ParseError as error:
        raise InputError(_syntax_problem(text, path, error.line, error.col + 1, str(error))) from None
    except TOMLKitError as error:
        raise InputError(f"the file is no TOML: {error}", where=str(path)) from None
    except RecursionError:
        raise InputError("the file is no settings file: it is nested too deeply", where=str(path)) from None


def _syntax_problem(text: str, path: Path, line: int, column: int, message: str) -> Problem:
    lines = text.split("\n")
    found = lines[line - 1] if line <= len(lines) else ""
    shown = found.strip() if len(found) < 200 else found.strip()[:200] + "..."
    advice = ""
    if "\\" in found:
        advice = "write paths with / or in single quotes: 'C:\\models\\base.safetensors'"
    what = re.sub(r" at line \d+ col \d+$", "", message).replace("\x00", "end of file")
    return Problem(
        f"this is no TOML: {shown}", where=f"{path}, line {line}, column {column}", why=what, next=advice
    )


@dataclass(frozen=True)
class _Key:
    table: str
    name: str
    line: int


_TOKEN = re.compile(
    r"""
      \#[^\n]*                                  # comment
    | \"{3}(?:\\.|[^\\])*?\"{3} | '{3}.*?'{3}     # texts over several lines
    | "(?:\\.|[^"\\\n])*"    | '[^'\n]*'         # texts
    | [\[\]{}=\n] | [^\s#"'\[\]{}=]+ | [ \t\r]+ | .
    """,
    re.DOTALL | re.VERBOSE,
)


def _keys(text: str) -> Iterator[_Key]:
    """Every ``key =`` at the start of a line with its heading and line; lists of tables are left out."""
    table, line = "", 1
    for statement in _statements(text):
        tokens = [token for token in statement if not token.isspace() and not token.startswith("#")]
        if tokens and tokens[0] == "[":
            table = "".join(tokens)
        elif "=" in tokens and not table.startswith("[["):
            name = "".join(tokens[: tokens.index("=")]).strip("\"'")
            yield _Key(table, name, line + _blank_lines(statement))
        line += sum(token.count("\n") for token in statement)


def _blank_lines(statement: list[str]) -> int:
    """Newlines before a statement's first word."""
    lines = 0
    for token in statement:
        if not token.isspace():
            break
        lines += token.count("\n")
    return lines


def _statements(text: str) -> Iterator[list[str]]:
    """The text's tokens, a list for each statement with its newline; brackets may span lines."""
    depth, tokens = 0, list[str]()
    for match in _TOKEN.finditer(text):
        token = match.group()
        tokens.append(token)
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        elif token == "\n" and depth <= 0:
            yield tokens
            depth, tokens = 0, []
    yield tokens


def _doubles(keys: list[_Key], path: Path) -> Iterator[Problem]:
    """Keys that stand twice, under one heading or under two."""
    first: dict[str, int] = {}
    for key in keys:
        if key.name in first:
            yield Problem(
                f"{key.name} stands twice, in line {first[key.name]} and in line {key.line}",
                where=f"{path}, line {key.line}",
                next="remove one of them",
                key=key.name,
            )
        first.setdefault(key.name, key.line)


def _item(value: Any) -> Any:
    import tomlkit

    if isinstance(value, str) and "\n" in value:
        return tomlkit.string(value, multiline=True)
    return value
