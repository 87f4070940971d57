"""Which pages there are, in which order, and which of them speaks of an option.

The pages are the files of ``docs/`` as they lie there. Whatever is asked for by name is looked up
among them, so that no name leads anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from backend.settings import schema
from backend.system.paths import REPOSITORY
from ui.docs.markdown import slug
from ui.i18n import catalogue, language

DOCS = REPOSITORY / "docs"
FIRST = "train-a-lora"
"""The page to begin with."""
REFERENCE = "options"
"""The page of all options, where each has an anchor of its name."""

ORDER: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "steps",
        (
            "train-a-lora",
            "prepare-a-dataset",
            "dataset-tab",
            "caption-and-tag",
            "learn-well",
            "generate",
            "runs",
            "troubleshooting",
        ),
    ),
    (
        "ways",
        (
            "models",
            "networks",
            "dreambooth-and-fine-tuning",
            "textual-inversion",
            "controlnet-lllite",
            "stable-diffusion-3",
            "optimizers",
            "memory-and-speed",
        ),
    ),
    (
        "beyond",
        (
            "merge-and-convert",
            "the-page",
            "command-line",
            "generate-on-the-command-line",
            "api",
            "languages",
        ),
    ),
    ("look_up", ("options", "benchmarks", "demo-world")),
)
"""Groups of pages for the list beside them; a page that is in none comes last."""

_OF_SECTION = {
    "model": ("models", "train-a-lora", "dreambooth-and-fine-tuning"),
    "dataset": ("train-a-lora", "prepare-a-dataset", "learn-well", "dreambooth-and-fine-tuning"),
    "caching": ("memory-and-speed", "prepare-a-dataset"),
    "network": ("networks", "stable-diffusion-3", "models"),
    "whole": ("dreambooth-and-fine-tuning",),
    "word": ("textual-inversion",),
    "guide": ("controlnet-lllite",),
    "optimizer": ("optimizers", "dreambooth-and-fine-tuning"),
    "schedule": ("optimizers", "train-a-lora", "dreambooth-and-fine-tuning"),
    "loss": ("learn-well", "dreambooth-and-fine-tuning", "stable-diffusion-3"),
    "sd3": ("stable-diffusion-3", "dreambooth-and-fine-tuning"),
    "precision": ("memory-and-speed",),
    "saving": ("train-a-lora", "runs", "dreambooth-and-fine-tuning"),
    "sampling": ("train-a-lora",),
    "tracking": ("command-line",),
    "hub": ("command-line",),
    "launch": ("memory-and-speed",),
    "sharding": ("memory-and-speed",),
}
"""Section of the settings -> the pages that may explain its options, the likeliest first."""

_HEADING = re.compile(r"^#{2,3} +(.+?) *$")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"(?:`(?:--)?|\s--)([a-z][a-z0-9_]*)|(?<!\*)\*{1,2}([A-Z][^*]+?)\*{1,2}")
"""An option's name as code, or its label with emphasis."""


def pages() -> dict[str, Path]:
    """Every page by name, in the order of the list."""
    found = {path.stem: path for path in sorted(DOCS.glob("*.md"))}
    listed = [name for _, names in ORDER for name in names if name in found]
    return {name: found[name] for name in dict.fromkeys([*listed, *found])}


def groups() -> list[tuple[str, list[str]]]:
    """(group, names of its pages) of all pages."""
    there = list(pages())
    found = [(group, [name for name in names if name in there]) for group, names in ORDER]
    rest = [name for name in there if all(name not in names for _, names in found)]
    found[-1][1].extend(rest)
    return found


def pictures() -> dict[str, Path]:
    """Every picture of the pages by file name."""
    endings = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
    return {path.name: path for path in sorted((DOCS / "images").glob("*")) if path.suffix in endings}


def title(name: str) -> str:
    """What a page is called in the list, in the reader's language."""
    known = catalogue(language()).get(f"docs.title_{name.replace('-', '_')}")
    return known or pages()[name].read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


@cache
def readings() -> Mapping[str, str]:
    """Option -> where a page explains it, from ``docs/`` on: ``memory-and-speed#several-cards``.

    That is where one of its section's pages names it first, by its name or by its label.
    """
    named = {name: _named(name, path.read_text(encoding="utf-8")) for name, path in pages().items()}
    found: dict[str, str] = {}
    for group in schema()["groups"]:
        likely = [named[name] for name in _OF_SECTION.get(group["id"], ()) if name in named]
        for option in group["options"]:
            places = (page.get(option["key"]) or page.get(option["label"]) for page in likely)
            if place := next(filter(None, places), None):
                found[option["key"]] = place
    return found


def _named(name: str, text: str) -> dict[str, str]:
    """What a page names outside of examples -> the heading under which it does so first."""
    found: dict[str, str] = {}
    place = name
    for line in _CODE.sub("", text).splitlines():
        if heading := _HEADING.match(line):
            place = f"{name}#{slug(heading[1])}"
        for key, label in _NAMED.findall(line):
            found.setdefault(key or label, place)
    return found
