"""``/docs/<page>``: the pages in the program's own frame, as plain HTML that is there at once.

They say nothing that is not public, so that reading them takes no password.
"""

from __future__ import annotations

import html
import json
import secrets
from functools import lru_cache
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ui.docs import library
from ui.docs.markdown import Drawn, draw
from ui.docs.reference import reference
from ui.form import asset
from ui.header import header
from ui.i18n import DEFAULT, language, t
from ui.i18n.language import COOKIE
from ui.theme import variables


def routes() -> list[BaseRoute]:
    """What the server answers under ``/docs``."""
    return [
        Route("/docs", _first),
        Route("/docs/images/{name}", _picture),
        Route("/docs/{name}", _page),
    ]


def _first(request: Request) -> Response:
    return RedirectResponse(f"docs/{library.FIRST}")


def _picture(request: Request) -> Response:
    path = library.pictures().get(request.path_params["name"])
    return FileResponse(path) if path else _missing()


def _page(request: Request) -> Response:
    name = str(request.path_params["name"])
    path = library.pages().get(name)
    if path is None:
        return _missing()
    return _answer(name, _drawn(path, path.stat().st_mtime_ns, language()))


def _missing() -> Response:
    return _answer("", Drawn(f"<h1>{html.escape(t('docs.missing'))}</h1>", ()), status=404)


@lru_cache(maxsize=128)
def _drawn(path: Path, changed: int, spoken: str) -> Drawn:
    """A page in a language; it is read anew when its file has ``changed``."""
    if path.stem == library.REFERENCE and spoken != DEFAULT:
        return draw(reference())
    return draw(path.read_text(encoding="utf-8"))


def _answer(name: str, drawn: Drawn, status: int = 200) -> Response:
    """A whole page. Nothing is loaded from anywhere else, and only our own script runs."""
    nonce = secrets.token_urlsafe(16)
    rules = (
        f"default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'nonce-{nonce}';"
        " base-uri 'none'; form-action 'none'"
    )
    headers = {
        "Content-Security-Policy": rules,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(_whole(name, drawn, nonce), status, headers)


def _whole(name: str, drawn: Drawn, nonce: str) -> str:
    title = library.title(name) if name else t("docs.missing")
    return Template(asset("docs.html")).substitute(
        language=language(),
        title=html.escape(f"{title} \u00b7 {t('app.name')}"),
        variables=variables(),
        style=asset("page.css") + asset("docs.css"),
        nonce=nonce,
        early=f"{{ {asset('docs-early.js')} }}",
        header=header("docs", "../"),
        contents=html.escape(t("docs.contents")),
        spoken=_spoken_in(name),
        name=html.escape(name),
        note=_in_english(name),
        body=drawn.body,
        list=_list(name, drawn),
        script=asset("head.js"),
        props=json.dumps({"cookie": COOKIE, "language": language()}),
    )


def _spoken_in(name: str) -> str:
    return language() if name in ("", library.REFERENCE) else DEFAULT


def _in_english(name: str) -> str:
    """A word to readers of other languages, where the page is in English."""
    if language() == _spoken_in(name):
        return ""
    return f'<p class="at-docs-note" lang="{language()}">{html.escape(t("docs.in_english"))}</p>'


def _list(here: str, drawn: Drawn) -> str:
    """All pages, and the headings of this one below it."""
    return "".join(
        f"<h2>{html.escape(t(f'docs.group_{group}'))}</h2><ul>"
        + "".join(_entry(name, drawn if name == here else None) for name in names)
        + "</ul>"
        for group, names in library.groups()
    )


def _entry(name: str, drawn: Drawn | None) -> str:
    words = html.escape(library.title(name))
    if drawn is None:
        return f'<li><a href="./{name}">{words}</a></li>'
    inner = "".join(
        f'<li><a href="#{html.escape(anchor)}">{html.escape(text)}</a></li>'
        for anchor, text in drawn.headings
    )
    return f'<li><a href="./{name}" aria-current="page">{words}</a><ul>{inner}</ul></li>'
