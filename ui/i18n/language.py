"""Which language a page is in: what was chosen in its header, or what the browser asks for.

The choice is a cookie, so that the server draws every page in it from the first byte on. Code that
answers a request learns the language from :func:`language`, without being told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from http.cookies import CookieError, SimpleCookie
from typing import Any

DEFAULT = "en"
NAMES = {"en": "English", "ja": "日本語", "zh": "中文"}
"""Every language of the page, in its own words."""
COOKIE = "atelier-language"

_spoken: ContextVar[str | None] = ContextVar("language", default=None)

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def language() -> str:
    """The language of the request that is being answered, or of the page that is being drawn."""
    return _spoken.get() or _of_event() or DEFAULT


@contextmanager
def speaking(name: str) -> Generator[None]:
    """Texts asked for inside are in this language."""
    token = _spoken.set(name)
    try:
        yield
    finally:
        _spoken.reset(token)


def wanted(cookies: str, accepted: str) -> str:
    """The language to answer in.

    Args:
        cookies: the header ``Cookie``, with what was chosen on the page.
        accepted: the header ``Accept-Language``, used as long as nothing was chosen.
    """
    try:
        chosen = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        chosen = None
    if chosen is not None and chosen.value in NAMES:
        return chosen.value
    return next((name for name in _preferred(accepted) if name in NAMES), DEFAULT)


def _preferred(accepted: str) -> list[str]:
    """Languages of an ``Accept-Language`` header without their countries, the dearest first (RFC 9110)."""
    weighed: list[tuple[float, str]] = []
    for item in accepted.split(","):
        name, _, quality = item.partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            weight = 0.0
        if weight > 0:
            weighed.append((weight, name.strip().lower().partition("-")[0]))
    return [name for _, name in sorted(weighed, key=lambda pair: -pair[0])]


class LanguageOfRequest:
    """ASGI middleware: each request is answered in its own language."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        answers = scope["type"] in ("http", "websocket")
        with speaking(_of_headers(scope["headers"])) if answers else nullcontext():
            await self.app(scope, receive, send)


def _of_headers(headers: list[tuple[bytes, bytes]]) -> str:
    found = {name.lower(): value.decode("latin-1") for name, value in headers}
    return wanted(found.get(b"cookie", ""), found.get(b"accept-language", ""))


def _of_event() -> str | None:
    """Language of the event that Gradio's queue is working on, outside of any request."""
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    headers: Any = getattr(request, "headers", None)
    if headers is None:
        return None
    return wanted(str(headers.get("cookie") or ""), str(headers.get("accept-language") or ""))
