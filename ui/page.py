"""The whole page: a route for each task, so that a page carries only its own components."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import gradio as gr
from gradio.routes import App
from starlette.middleware import Middleware

from ui import offers
from ui.context import Context
from ui.docs.route import routes
from ui.form import ASSETS, asset
from ui.guard import Guard
from ui.header import header
from ui.i18n import DEFAULT, NAMES, language, speaking, t
from ui.i18n.language import COOKIE, LanguageOfRequest
from ui.tabs import captioning, dataset, generate, merge, runs, settings, start, tagging, train
from ui.theme import theme

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


_ROUTES: Mapping[str, Callable[[Context], object]] = {
    "start": start.build,
    "dataset": dataset.build,
    "captioning": captioning.build,
    "tagging": tagging.build,
    "generate": generate.build,
    "models": merge.build,
    "runs": runs.build,
    "system": settings.build,
}
"""Each page beside the first one, by its address, and what draws it. The last one carries the endpoints."""


def _header(active: str) -> gr.HTML:
    """Name, pages, help, language and theme."""
    return gr.HTML(
        value="",
        html_template=header(active),
        js_on_load=asset("head.js"),
        elem_id="head",
        apply_default_css=False,
        language=language(),
        cookie=COOKIE,
    )


class Pages(gr.Blocks):
    """The pages in every language. Who asks for one gets the texts of one language only.

    What is drawn first answers all events; of the same pages drawn in other languages only the
    components' looks are kept.
    """

    def __init__(self, **arguments: Any) -> None:
        self._own: dict[str, Any] = {}
        self._others: dict[str, dict[str, Any]] = {}
        super().__init__(**arguments)

    @property
    def config(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What Gradio sends to the browser, in the language of the request."""
        return {**self._own, **self._others.get(language(), {})}

    @config.setter
    def config(self, found: Any) -> None:
        self._own = cast("dict[str, Any]", found)

    def also_in(self, name: str, drawn: gr.Blocks) -> None:
        """Show these pages to readers of a language as ``drawn``, which is the same but for its texts."""
        theirs = cast("dict[str, Any]", drawn.config)
        ours, others = self._own["components"], theirs["components"]
        assert all(one["type"] == "api" for one in ours[len(others) :]), "only endpoints have no texts"
        components = [*map(_in_other_words, ours, others), *ours[len(others) :]]
        self._others[name] = {"components": components, "pages": theirs["pages"], "title": theirs["title"]}


def _in_other_words(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A component with another's texts. Numbers of components are one's own."""
    assert ours["type"] == theirs["type"], "a page is built otherwise in another language"
    return {**ours, "props": theirs["props"]}


def build(context: Context) -> Pages:
    """All pages, in all languages. Nothing runs yet: see :func:`launch_options`."""
    with _no_servers():
        with speaking(DEFAULT):
            pages = _draw(context, endpoints=True)
        for name in NAMES:
            if name != DEFAULT:
                with speaking(name):
                    pages.also_in(name, _draw(context))
    return pages


@contextmanager
def _no_servers() -> Generator[None]:
    """Pages are drawn without a server.

    Gradio makes one whenever a page is done, and another one when it is launched, which is the only
    one that answers: the rest take most of the time that drawing takes.
    """
    made = App.create_app
    App.create_app = staticmethod(lambda *_, **__: None)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        App.create_app = staticmethod(made)


def _draw(context: Context, endpoints: bool = False) -> Pages:
    """All pages in the language spoken."""
    with Pages(title=t("app.name"), analytics_enabled=False, fill_width=True) as page:
        _header("train")
        train.build(context)
    for name, draw in _ROUTES.items():
        with page.route(t(f"app.{name}"), f"/{name}"):
            _header(name)
            draw(context)
            if endpoints and name == "system":  # drawn last and seldom opened
                offers.build(context, context.safe_tools)
    return page


def _style() -> str:
    """Our style sheets, nested so that they win over Gradio's.

    Not given as ``css``, whose selectors Gradio rewrites, breaking those with commas inside.
    """
    return f"<style>.gradio-container.gradio-container {{ {asset('page.css')} {asset('form.css')} }}</style>"


def launch_options(
    context: Context, local: bool = True, allowed_hosts: Collection[str] = ()
) -> dict[str, Any]:
    """What ``Blocks.launch`` is given apart from address and password.

    ``local`` and ``allowed_hosts``: see :class:`ui.guard.Guard`.
    """
    guard = Middleware(Guard, local=local, allowed=allowed_hosts)
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
        "app_kwargs": {"middleware": [guard, Middleware(LanguageOfRequest)], "routes": routes()},
    }
