"""Who may ask the server: pages of its own, and programs. Not pages of other sites.

A browser sends along from which site a request comes (``Origin``) and for which name it is meant
(``Host``), and no script can change either. A foreign site could otherwise start things here with a form
or a script, or get at answers by giving its own name the address of this machine (DNS rebinding).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from ui.server import is_local


class Guard:
    """ASGI middleware that answers 403 to requests from or for other sites.

    Args:
        local: the server listens on this machine only. Then requests must be meant for it by one of its
            own names. On other addresses, where a password is demanded, any name may lead here.
        allowed: further names under which it may be asked, such as that of a proxy before it.
    """

    def __init__(self, app: Any, local: bool = True, allowed: Collection[str] = ()) -> None:
        self.app = app
        self.local = local
        self.allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {
                name.lower().decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
            }
            why = self.refusal(headers)
            if why:
                await _refuse(scope, send, why)
                return
        await self.app(scope, receive, send)

    def refusal(self, headers: dict[str, str]) -> str:
        """Why a request with these headers (names in lower case) is refused; '' when it is not."""
        host = headers.get("host", "")
        if self.local and not self._is_ours(_name(f"//{host}")):
            return f"this server is not {host}; start it with --allow-host to be asked by that name"
        origin = headers.get("origin")
        if origin is None:
            return ""
        # A proxy that gives the request another host tells the first one; no page of a browser can.
        own = {host, headers.get("x-forwarded-host", host)}
        if urlsplit(origin).netloc in own or _name(origin) in self.allowed:
            return ""
        return f"requests from {origin} are not answered"

    def _is_ours(self, name: str) -> bool:
        return is_local(name) or name in self.allowed


def _name(address: str) -> str:
    """The host of an address without its port, in lower case."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


async def _refuse(scope: Any, send: Any, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
        return
    body = json.dumps({"detail": why, "code": "foreign_request"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
