"""Wildcards in prompts: ``{red|blue} cat``.

- ``{a|b|c}``: one of them; ``{2$$a|b|c}``: two of them, joined by ``, ``; ``{1-2$$ and $$a|b|c}``: one
  or two, joined by `` and ``. None is taken twice.
- ``{e$$a|b}``: each in turn, so that a request becomes several; also ``{e$$2$$a|b|c}`` (each pair).
- They may stand inside each other. ``\\{`` and ``\\}`` are the signs themselves; braces without ``|`` and
  ``$$`` stay as they are.

What is taken belongs to the picture's seed, so that the same request gives the same words. Escapes stay in
the text until it is encoded: a text without wildcards is the same after every pass.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from backend import keyed
from backend.generate.request import Request

_INNERMOST = re.compile(r"(?<!\\)\{((?:\\[{}]|[^{}])*?)(?<!\\)\}")
_COUNT = re.compile(r"^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$")
_OPEN, _CLOSE = "\ue000", "\ue001"
"""Stand for braces that stay, while a text is worked on."""
MOST = 1000
"""Texts that one prompt may become."""


def settled(request: Request) -> list[Request]:
    """The request with its wildcards replaced; several where choices are enumerated."""
    if "{" not in request.prompt + request.negative:
        return [request]
    draw = keyed.python(request.seed or 0, "wildcards")
    negative = next(iter(expanded(request.negative, draw)))
    texts = list(expanded(request.prompt, draw))
    return [replace(request, prompt=text, negative=negative) for text in texts]


def expanded(prompt: str, draw: random.Random) -> Iterator[str]:
    """The texts that a prompt stands for, at most 1000: one, or more where choices are enumerated."""
    waiting, given = [prompt], 0
    while waiting and given < MOST:
        text = waiting.pop(0)
        match = _INNERMOST.search(text)
        if match is None:
            given += 1
            yield text.replace(_OPEN, "{").replace(_CLOSE, "}")
            continue
        before, after = text[: match.start()], text[match.end() :]
        waiting = [f"{before}{choice}{after}" for choice in _choices(match[1], draw)] + waiting


def _choices(inside: str, draw: random.Random) -> Sequence[str]:
    """What may stand in place of a pair of braces: one text, or all where they are enumerated."""
    if "|" not in inside and "$$" not in inside:
        return [f"{_OPEN}{inside}{_CLOSE}"]
    *rules, listed = inside.split("$$")
    every = bool(rules) and rules[0].strip().lower() == "e"
    rules = rules[1:] if every else rules
    options = listed.split("|")
    low, high = _range(rules[0] if rules else "", len(options))
    joint = rules[1] if len(rules) > 1 else ", "
    if every:
        return [joint.join(each) for count in range(low, high + 1) for each in combinations(options, count)]
    count = draw.randint(low, high)
    return [joint.join(draw.sample(options, count))]


def _range(rule: str, most: int) -> tuple[int, int]:
    """(least, most) options that are taken; 1 where nothing is said or it cannot be read."""
    match = _COUNT.match(rule)
    if match is None:
        return 1, 1
    low = min(int(match[1]), most)
    return low, max(low, min(int(match[2] or match[1]), most))
