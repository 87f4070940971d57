"""The settings form: one HTML component drawn from the settings schema.

Hundreds of single Gradio fields cost seconds of browser time; this one component gets the schema
as JSON, draws native inputs, and searches, hides, marks and resets in the browser. Its value is
``{key: value}`` of everything that differs from the defaults.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from backend.settings import deepspeed, schema
from backend.settings.optimizers import unavailable
from backend.settings.trackers import missing_trackers
from ui.bind import own_keys
from ui.docs.library import readings, title
from ui.i18n import language, said, t, texts
from ui.i18n.options import translated_groups

ASSETS = Path(__file__).parent / "assets"


@cache
def asset(name: str) -> str:
    """A file of ``ui/assets`` as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


def filled(name: str) -> str:
    """An HTML file of ``ui/assets`` with its ``[[keys]]`` replaced by texts."""
    return re.sub(r"\[\[([a-z_.]+)\]\]", lambda found: html.escape(t(found[1])), asset(name))


def form_schema(first: Sequence[str]) -> dict[str, Any]:
    """The whole form: ``first`` are the keys of the essentials, in order.

    To an option's schema come ``lacks``: choice -> why it cannot be chosen on this machine, and ``read``:
    the page and anchor of the docs that explain it. ``docs`` are the titles of those pages.
    """
    lacks = {"optimizer_type": unavailable(), "log_with": missing_trackers()}
    if why := deepspeed.missing():
        lacks["deepspeed"] = {"true": why}
    groups = [
        {**group, "options": [_on_this_page(option, lacks) for option in group["options"]]}
        for group in translated_groups(schema()["groups"], language())
    ]
    read = {place.partition("#")[0] for place in readings().values()}
    return {
        "first": list(first),
        "own": own_keys(),
        "groups": groups,
        "docs": {name: title(name) for name in sorted(read)},
    }


def _on_this_page(option: dict[str, Any], lacks: dict[str, dict[str, str]]) -> dict[str, Any]:
    key = option["key"]
    own: dict[str, Any] = {"read": readings()[key]} if key in readings() else {}
    if key in lacks:
        own["lacks"] = {choice: said(why) for choice, why in lacks[key].items()}
    return {**option, **own}


def settings_page(
    template: str,
    scripts: Sequence[str],
    first: Sequence[str],
    calls: Sequence[Callable[..., Any]],
    elem_id: str,
    text_prefixes: Sequence[str],
) -> gr.HTML:
    """A page around a form.

    Args:
        template: HTML with the elements that ``form.js`` and ``scripts`` fill.
        scripts: files in ``ui/assets`` of the page's own behaviour, in their order; they share one scope.
        first: options shown in the basic view.
        calls: functions of the server that the script may call, by their names.
        text_prefixes: texts the scripts need.
    """
    return gr.HTML(
        value={},
        html_template=template,
        js_on_load="\n".join(asset(name) for name in ("about.js", "form.js", *scripts)),
        server_functions=list(calls),
        elem_id=elem_id,
        elem_classes=["at-page"],
        apply_default_css=False,
        schema=json.dumps(form_schema(first), ensure_ascii=False),
        texts=json.dumps(texts(*text_prefixes), ensure_ascii=False),
    )
