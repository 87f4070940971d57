"""The source of the project as facts: who imports whom, how long functions and files are."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("app.py", "ui", "backend", "tools")


@cache
def sources() -> tuple[Path, ...]:
    """Every Python file that is part of the program."""
    found: list[Path] = []
    for name in SOURCES:
        path = ROOT / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return tuple(found)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Import:
    """One import of one file."""

    file: Path
    line: int
    module: str
    """What is imported, with the names of ``from``: ``backend.settings.Settings``."""
    at_start: bool
    """It runs when the file is imported: not inside a function, not for the type checker only."""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return tuple(_imports(path, tree, True))


def _imports(path: Path, node: ast.AST, at_start: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(path, node.lineno, alias.name, at_start) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _base(path, node)
        yield from (Import(path, node.lineno, f"{base}.{alias.name}", at_start) for alias in node.names)
    inside = (
        at_start
        and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and not _for_types_only(node)
    )
    for child in ast.iter_child_nodes(node):
        yield from _imports(path, child, inside)


def _base(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module_name(path).split(".")
    parts = parts if path.name == "__init__.py" else parts[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@dataclass(frozen=True)
class Function:
    file: Path
    name: str
    lines: int
    """Of code: without comments, blank lines and the docstring."""
    parameters: int

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)} {self.name}: {self.lines} lines, {self.parameters} parameters"


@cache
def code_lines(path: Path) -> frozenset[int]:
    """Numbers of the lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(lines)


@cache
def functions() -> tuple[Function, ...]:
    found: list[Function] = []
    for path in sources():
        lines = code_lines(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = len(lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
                arguments = node.args
                names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                own = [name for name in names if name.arg not in {"self", "cls"}]
                found.append(Function(path, node.name, count, len(own)))
    return tuple(found)


def is_table(path: Path) -> bool:
    """A file of data: most of its code lines lie outside functions, and it has few of those."""
    inside = sum(function.lines for function in functions() if function.file == path)
    return inside < len(code_lines(path)) / 4


def words_read(path: Path) -> set[str]:
    """Attributes that a file reads, and texts it holds that could be a key."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return attributes | texts
