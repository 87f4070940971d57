"""A small part of the Hugging Face hub's HTTP interface, on 127.0.0.1, for its real client."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class FakeHub:
    """Repositories in memory. Only requests with ``token`` may write."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.failing = 0
        """So many commits are answered with an error 500 first."""
        self.address = ""

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                self.files[repository][value["path"]] = base64.b64decode(value["content"])


@contextmanager
def serve(token: str) -> Iterator[FakeHub]:
    """A hub that answers while the block runs."""
    hub = FakeHub(token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

        def may(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {hub.token}":
                return True
            self.json({"error": f"Invalid token {self.headers.get('Authorization')}"}, 401)
            return False

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if not self.may():
                return
            if parts == ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
                name = name if "/" in name else f"ann/{name}"
                hub.files.setdefault(name, {})
                hub.private.setdefault(name, wanted.get("private") or wanted.get("visibility") == "private")
                self.json({"url": f"{hub.address}/{name}", "name": name, "id": name})
            elif parts[4] == "preupload":
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for one in json.loads(body)["files"]
                ]
                self.json({"files": files})
            elif parts[4] == "commit":
                if hub.failing:
                    hub.failing -= 1
                    self.json({"error": f"out of order for {hub.token}"}, 400)
                    return
                repository = "/".join(parts[2:4])
                hub.commit(repository, [json.loads(line) for line in body.splitlines()])
                url = f"{hub.address}/{repository}/commit/{COMMIT}"
                self.json({"commitUrl": url, "commitOid": COMMIT, "success": True, "pullRequestUrl": None})
            else:
                self.json({"error": "unknown"}, 404)

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[0] == "api" and parts[4:5] == ["tree"]:
                self.tree("/".join(parts[2:4]))
            elif parts[0] == "api" and len(parts) >= 4:
                self.info("/".join(parts[2:4]))
            elif len(parts) > 4 and parts[2] == "resolve":
                self.content("/".join(parts[:2]), "/".join(parts[4:]))
            else:
                self.json({"error": "unknown"}, 404)

        do_HEAD = do_GET  # noqa: N815 - the library calls it so

        def info(self, repository: str) -> None:
            if repository not in hub.files:
                self.answer(404, X_Error_Code="RepoNotFound")
                return
            files = [{"rfilename": name} for name in hub.files[repository]]
            self.json({"id": repository, "sha": COMMIT, "siblings": files, "tags": [], "private": True})

        def tree(self, repository: str) -> None:
            found = hub.files.get(repository, {})
            self.json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in found.items()
                ]
            )

        def content(self, repository: str, path: str) -> None:
            data = hub.files.get(repository, {}).get(path)
            if data is None:
                self.answer(404, X_Error_Code="EntryNotFound")
                return
            etag = hashlib.sha1(data).hexdigest()
            self.answer(
                200, data, ETag=f'"{etag}"', X_Repo_Commit=COMMIT, Content_Length=str(len(data)),
                Content_Type="application/octet-stream",
            )  # fmt: skip

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
