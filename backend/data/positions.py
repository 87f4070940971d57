"""On which line a key of a TOML or JSON file stands, for messages about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""The way to a value: ('datasets', 0, 'subsets', 1, 'image_dir')."""

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_\-]+))\s*=""")
_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]')


def toml_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every key and table header that stands on a line of its own."""
    lines: dict[Path, int] = {}
    for path, number in _toml_keys(text):
        lines.setdefault(path, number)
    return lines


def toml_duplicate(text: str) -> int | None:
    """The first line that gives a key (or table) which was given before."""
    seen: set[Path] = set()
    for path, number in _toml_keys(text):
        if path in seen:
            return number
        seen.add(path)
    return None


def _toml_keys(text: str) -> Iterator[tuple[Path, int]]:
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            names = [name.strip().strip("\"'") for name in match[2].split(".")]
            table = _table(names, match[1] == "[[", counts)
            yield table, number
        elif match := _KEY.match(line):
            yield (*table, match[1] or match[2] or match[3]), number


def _table(names: list[str], repeated: bool, counts: dict[Path, int]) -> Path:
    """The path a header opens; arrays of tables count up."""
    path: Path = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if repeated and position == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def json_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every key and of every item of an array of objects."""
    return {path: text.count("\n", 0, offset) + 1 for path, offset in _json_offsets(text)}


def _json_offsets(text: str) -> Iterator[tuple[Path, int]]:
    path: list[str | int] = []
    last = ""
    for match in _JSON.finditer(text):
        token = match[0]
        if token.startswith('"'):
            last = token[1:-1]
        elif token == ":":
            path[-1:] = [last]
            yield tuple(path), match.start()
        elif token in "{[":
            yield tuple(path), match.start()
            path.append(0 if token == "[" else "")
        elif token == "," and path and isinstance(path[-1], int):
            path[-1] += 1
        elif token in "}]" and path:
            path.pop()


def find_line(text: str, lines: dict[Path, int], path: Path) -> int | None:
    """The line of ``path``, of the table that holds it, or of the first mention of its name."""
    if path in lines:
        return lines[path]
    if path and isinstance(path[-1], str):
        mention = re.search(rf"""(?m)^.*?["']?\b{re.escape(path[-1])}\b["']?\s*[=:]""", text)
        if mention:
            return text.count("\n", 0, mention.start()) + 1
    return lines.get(path[:-1])
