"""A page of its own: one component whose script draws it and asks the server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from ui.calls import Call
from ui.context import Context
from ui.files import FileBrowser
from ui.form import asset, filled
from ui.i18n import t, texts
from ui.offers import offered

BASE = "page-kit.js"
"""What the script of a page stands on."""
KIT = (BASE, "page-mask.js")
"""Scripts that stand before those of a page that uses them."""
FIELDS = ("files.js", "page-paths.js", "about.js", "page-about.js")
"""Scripts of what stands beside a field: the choice of a path, and the words behind its label."""
_SAID = (
    "browse",
    "browse_for",
    "about",
    "real_name",
    "range",
    "default",
    "on",
    "off",
    "from",
    "to",
    "read_on",
)


def field_words() -> str:
    """What :data:`FIELDS` say, as JSON."""
    own = {key: t(key) for key in (*(f"form.{name}" for name in _SAID), "train.no_answer")}
    return json.dumps({**texts("files."), **own}, ensure_ascii=False)


def path_methods(context: Context) -> tuple[Call, ...]:
    """What :data:`FIELDS` call."""
    return FileBrowser(context.roots, context.drafts).methods()


def scripted_page(
    context: Context,
    name: str,
    scripts: Sequence[str],
    methods: Iterable[Call],
    prefix: str,
    **facts: object,
) -> gr.HTML:
    """The page of ``name.html`` and ``name.css`` in ``ui/assets``.

    Args:
        scripts: of ``ui/assets``, joined in this order; they share one scope.
        methods: what the scripts call, by their names; they become endpoints ``<name>_<method>`` as well.
        prefix: of the texts that the scripts have.
        facts: what else they have, by name, as JSON.
    """
    given: dict[str, Any] = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    return gr.HTML(
        value="",
        html_template=filled(f"{name}.html"),
        head=f"<style>.gradio-container.gradio-container {{ {asset(f'{name}.css')} }}</style>",
        js_on_load="\n".join(asset(script) for script in (*FIELDS, *scripts)),
        server_functions=offered(context, name, (*methods, *path_methods(context))),
        fields=field_words(),
        elem_id=name,
        elem_classes=["at-page"],
        apply_default_css=False,
        texts=json.dumps(texts(prefix), ensure_ascii=False),
        **given,
    )
