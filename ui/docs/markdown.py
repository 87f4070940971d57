"""Markdown of ``docs/`` to HTML that may stand in a page: no HTML of the source's own gets through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

_OUTSIDE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_PAGE = re.compile(r"^(?P<name>[\w-]+)\.md(?P<anchor>#.*)?$")
_OPTION = re.compile(r"^[a-z][a-z0-9_]*$")


@dataclass(frozen=True)
class Drawn:
    """A page as HTML."""

    body: str
    headings: tuple[tuple[str, str], ...]
    """(anchor, words) of the headings of second rank."""


def draw(source: str) -> Drawn:
    """A page of ``docs/`` as HTML.

    Headings get anchors as repository hosts make them, rows of tables that begin with an option's name
    get that name as anchor. Links to other pages lose their ending; others open beside the page.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(source)
    headings: list[tuple[str, str]] = []
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            words = _plain(tokens[at + 1])
            token.attrSet("id", _unused(slug(words), {anchor for anchor, _ in headings}))
            if token.tag == "h2":
                headings.append((str(token.attrs["id"]), words))
        elif token.type == "tr_open" and (name := _row_of(tokens, at)):
            token.attrSet("id", name)
        for child in token.children or ():
            if child.type == "link_open":
                _mend_link(child)
    options: Any = reader.options
    return Drawn(reader.renderer.render(tokens, options, {}), tuple(headings))


def slug(words: str) -> str:
    """The anchor of a heading: small letters, without marks, dashes for blanks."""
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")


def _unused(anchor: str, taken: set[str]) -> str:
    numbered = (f"{anchor}-{count}" for count in range(1, len(taken) + 2))
    return next(name for name in (anchor, *numbered) if name not in taken)


def _plain(inline: Token) -> str:
    return "".join(child.content for child in _leaves(inline))


def _leaves(inline: Token) -> Iterator[Token]:
    for child in inline.children or ():
        if child.type in ("text", "code_inline"):
            yield child


def _row_of(tokens: list[Token], at: int) -> str:
    """The option that a table's row is about, or nothing."""
    first = tokens[at + 2]
    children = first.children or []
    if tokens[at + 1].type != "td_open" or [child.type for child in children] != ["code_inline"]:
        return ""
    return children[0].content if _OPTION.match(children[0].content) else ""


def _mend_link(link: Token) -> None:
    address = str(link.attrs.get("href", ""))
    if page := _PAGE.match(address):
        link.attrSet("href", f"./{page['name']}{page['anchor'] or ''}")
    elif _OUTSIDE.match(address):
        link.attrSet("target", "_blank")
        link.attrSet("rel", "noopener noreferrer")
