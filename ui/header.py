"""The line at the top of every page: where one is, help, the language, light or dark."""

from __future__ import annotations

import html

from ui.i18n import NAMES, language, t

PAGES = (
    ("start", "./start", "train-a-lora"),
    ("train", "./", "the-page"),
    ("dataset", "./dataset", "dataset-tab"),
    ("captioning", "./captioning", "caption-and-tag"),
    ("tagging", "./tagging", "caption-and-tag"),
    ("generate", "./generate", "generate"),
    ("models", "./models", "merge-and-convert"),
    ("runs", "./runs", "runs"),
    ("system", "./system", "troubleshooting"),
)
"""Name of a page, its address from any of them, and the page of ``docs`` that tells how to use it."""

HELP_WINDOW = "atelier-docs"
"""Help opens beside the page it is asked from, in one and the same window."""


def header(active: str, base: str = "./") -> str:
    """HTML of the line. The pages are plain links that work without a script; ``head.js`` serves the rest.

    Args:
        active: name of the page one is on; another for a page that is none of those.
        base: the program's own address, as seen from the page.
    """
    links = "".join(
        _link(base + path.removeprefix("./"), t(f"app.{name}"), name == active) for name, path, _ in PAGES
    )
    return (
        f'<header class="at-head"><a class="at-name" href="{base}start">{html.escape(t("app.name"))}</a>'
        f'<nav aria-label="{html.escape(t("app.pages"))}">{links}</nav>{_help(active, base)}{_languages()}'
        f'<button type="button" class="at-theme" aria-label="{html.escape(t("app.theme"))}"'
        f' title="{html.escape(t("app.theme"))}">\u25d0</button></header>'
    )


def _link(path: str, label: str, here: bool) -> str:
    return f'<a href="{path}"{" aria-current=page" if here else ""}>{html.escape(label)}</a>'


def _help(active: str, base: str) -> str:
    page = next((page for name, _, page in PAGES if name == active), "")
    if not page:
        return ""
    title = html.escape(t("docs.open"))
    return (
        f'<a class="at-help-link" href="{base}docs/{page}" target="{HELP_WINDOW}" title="{title}">'
        f"{html.escape(t('docs.help'))}</a>"
    )


def _languages() -> str:
    """The choice of languages, each in its own words; the script beside it remembers what is chosen."""
    choices = "".join(
        f'<option value="{name}" lang="{name}"{" selected" if name == language() else ""}>{own}</option>'
        for name, own in NAMES.items()
    )
    label = html.escape(t("app.language"))
    return f'<select class="at-language" aria-label="{label}" title="{label}">{choices}</select>'
