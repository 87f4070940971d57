"""The whole page: a route for each task, so that a page carries only its own components."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from ui.context import Context
from ui.form import ASSETS, asset
from ui.i18n import t
from ui.tabs import dataset, generate, merge, runs, start, train
from ui.theme import theme

_PAGES = (
    ("start", "./start"),
    ("train", "./"),
    ("dataset", "./dataset"),
    ("generate", "./generate"),
    ("models", "./models"),
    ("runs", "./runs"),
)

_EARLY = """<script>
try {
  const chosen = localStorage.getItem("atelier-theme");
  const address = new URL(location.href);
  if (chosen && !address.searchParams.has("__theme")) {
    address.searchParams.set("__theme", chosen);
    history.replaceState(null, "", address);
  }
} catch {}
</script>"""
"""Runs before Gradio reads the address: a theme that was chosen here wins over the system's."""


def _link(path: str, label: str, here: bool) -> str:
    return f'<a href="{path}"{" aria-current=page" if here else ""}>{html.escape(label)}</a>'


def _header(active: str) -> gr.HTML:
    """Name, pages and theme switch, as plain links that work without a script."""
    links = "".join(_link(path, t(f"app.{name}"), name == active) for name, path in _PAGES)
    return gr.HTML(
        value="",
        html_template=(
            f'<header class="at-head"><a class="at-name" href="./start">{t("app.name")}</a>'
            f'<nav aria-label="{t("app.pages")}">{links}</nav>'
            f'<button type="button" class="at-theme" aria-label="{t("app.theme")}" title="{t("app.theme")}">'
            "\u25d0</button></header>"
        ),
        js_on_load=asset("head.js"),
        elem_id="head",
        apply_default_css=False,
    )


def build(context: Context) -> gr.Blocks:
    """All pages. Nothing runs yet: see :func:`launch_options`."""
    with gr.Blocks(title=t("app.name"), analytics_enabled=False, fill_width=True) as page:
        _header("train")
        train.build(context)
    with page.route(t("app.start"), "/start"):
        _header("start")
        start.build(context)
    with page.route(t("app.dataset"), "/dataset"):
        _header("dataset")
        dataset.build(context)
    with page.route(t("app.generate"), "/generate"):
        _header("generate")
        generate.build(context)
    with page.route(t("app.models"), "/models"):
        _header("models")
        merge.build(context)
    with page.route(t("app.runs"), "/runs"):
        _header("runs")
        runs.build(context)
    return page


def _style() -> str:
    """Our style sheets, nested so that they win over Gradio's.

    Not given as ``css``, whose selectors Gradio rewrites, breaking those with commas inside.
    """
    return f"<style>.gradio-container.gradio-container {{ {asset('page.css')} {asset('form.css')} }}</style>"


def launch_options(context: Context) -> dict[str, Any]:
    """What ``Blocks.launch`` is given apart from address and password."""
    return {
        "theme": theme(),
        "head": _EARLY + _style(),
        "favicon_path": ASSETS / "icon.svg",
        "allowed_paths": context.allowed,
        "show_error": True,
        "run_history": False,
        "footer_links": [],
        "share": False,
        "ssr_mode": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "enable_monitoring": False,
    }
