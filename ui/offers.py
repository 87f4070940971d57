"""What the pages can do, under names that programs call: each is a Gradio endpoint besides (``docs/api.md``).

A page offers its methods while it is drawn. Where the pages are drawn in several languages, those drawn
first do the work, for people and programs alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gradio.events import api

from ui.calls import Call, callable_from_page
from ui.live import live_log, view

if TYPE_CHECKING:
    from ui.context import Context

SAFE = frozenset(
    (
        "train_look", "train_status", "train_plan", "train_texts", "train_read_preset", "train_open_page",
        "train_import_settings", "train_export_preset", "train_sample_prompts", "train_browse", "run_shown",
        "run_log", "runs_list_all", "runs_card", "runs_compare", "system_health", "system_places",
        "start_newest", "models_look", "models_command", "dataset_examined",
    )
)  # fmt: skip
"""Endpoints that look and change nothing but drafts: what an assistant may call on its own."""


def offered(context: Context, page: str, methods: Iterable[Call]) -> list[Call]:
    """Functions for a page's script, which are endpoints ``<page>_<name>`` as well."""
    calls: list[Call] = []
    for method in methods:
        call = callable_from_page(method)
        context.offers.setdefault(f"{page}_{call.__name__}", call)
        calls.append(call)
    return calls


def shown(data: dict[str, Any]) -> dict[str, Any]:
    """A run as the live panel shows it: ``run`` is its id; without one, the current run."""
    id = data.get("run")
    return view(id if isinstance(id, str) else None)


def log(data: dict[str, Any]) -> dict[str, Any]:
    """The newest lines of the log of ``run``, from the line numbered ``first`` on."""
    return live_log([data.get("run"), data.get("first") or 0])


def build(context: Context, safe_tools: bool = False) -> None:
    """Make an endpoint of everything that was offered. Draw it last, on a page that is seldom opened.

    Args:
        safe_tools: an assistant's tools are made of the public endpoints, so that only those in
            :data:`SAFE` are public; the others can still be called by programs.
    """
    offered(context, "run", (shown, log))
    for name, call in sorted(context.offers.items()):
        public = safe_tools and name in SAFE
        api(
            _endpoint(call),
            api_name=name,
            api_description=call.__doc__,
            api_visibility="public" if public else "undocumented",
        )


def _endpoint(call: Call) -> Call:
    """With the types that Gradio reads; the page's own functions are called without them."""

    def endpoint(data: dict[str, Any]) -> dict[str, Any]:
        return call(data)

    endpoint.__name__ = call.__name__
    endpoint.__doc__ = call.__doc__
    return endpoint
