"""Requests from and for other sites are refused, by the middleware and by the server as it is started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ui.guard import Guard

ROOT = Path(__file__).resolve().parents[2]
LOCAL, OPEN = Guard(None), Guard(None, local=False)
PROXIED = Guard(None, allowed=["Art.Example.org"])


@pytest.mark.parametrize(
    ("guard", "headers", "refused"),
    [
        (LOCAL, {"host": "127.0.0.1:7860"}, False),
        (LOCAL, {"host": "localhost:7860"}, False),
        (LOCAL, {"host": "[::1]:7860"}, False),
        (LOCAL, {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, False),
        (LOCAL, {"host": "evil.com:7860"}, True),  # DNS rebinding: its name has this machine's address
        (LOCAL, {"host": "evil.com:7860", "origin": "http://evil.com:7860"}, True),
        (LOCAL, {"host": "192.168.1.5:7860"}, True),
        (LOCAL, {"host": "127.0.0.1.evil.com"}, True),
        (LOCAL, {"host": "[::1"}, True),
        (LOCAL, {}, True),
        (LOCAL, {"host": "127.0.0.1:7860", "origin": "http://evil.com"}, True),
        (LOCAL, {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999"}, True),  # another program here
        (LOCAL, {"host": "127.0.0.1:7860", "origin": "null"}, True),  # a file, or a page in a sandbox
        (LOCAL, {"host": "127.0.0.1:7860", "origin": "http://art.example.org"}, True),
        (PROXIED, {"host": "art.example.org"}, False),
        (PROXIED, {"host": "art.example.org", "origin": "https://art.example.org"}, False),
        (PROXIED, {"host": "127.0.0.1:7860", "origin": "https://art.example.org"}, False),
        (PROXIED, {"host": "evil.com"}, True),
        (OPEN, {"host": "my-host:7860"}, False),
        (OPEN, {"host": "my-host:7860", "origin": "http://my-host:7860"}, False),
        (OPEN, {"host": "10.0.0.2", "x-forwarded-host": "art.org", "origin": "https://art.org"}, False),
        (OPEN, {"host": "my-host:7860", "origin": "http://evil.com"}, True),
    ],
)
def test_who_may_ask(guard: Guard, headers: dict[str, str], refused: bool) -> None:
    assert bool(guard.refusal(headers)) is refused


Ask = Callable[..., tuple[int, bytes]]


def asking(url: str) -> Ask:
    def ask(path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url + path, data=body, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return ask


def started(home: Path, *options: str) -> Iterator[Ask]:
    """The server as a user starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "ATELIER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), "--no-browser", *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + 180
        while "Atelier is at" not in (line := process.stdout.readline()):
            assert line and time.monotonic() < deadline, "the server did not start"
        yield asking(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from started(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from started(tmp_path_factory.mktemp("open"), "--listen", "0.0.0.0", "--password", "sesame")


JOIN = json.dumps({"data": [{}], "fn_index": 0, "session_hash": "x"}).encode()
ROUTES: tuple[tuple[str, bytes | None], ...] = (
    ("/config", None),
    ("/gradio_api/info", None),
    ("/gradio_api/file=/etc/passwd", None),
    ("/gradio_api/queue/join", JOIN),
    ("/gradio_api/call/train_start", b'{"data": [{}]}'),
    ("/gradio_api/upload", b"--x--"),
)


def test_other_sites_get_nothing_of_the_server(local: Ask) -> None:
    for path, body in (("/start", None), *ROUTES):
        for foreign in ({"Host": "evil.com:7860"}, {"Origin": "http://evil.com"}):
            status, answer = local(path, body, Content_Type="application/json", **foreign)
            assert status == 403 and json.loads(answer)["code"] == "foreign_request", (path, foreign)
    assert local("/start")[0] == 200 and local("/config")[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/gradio_api/queue/join", b"{bad"),
        ("/gradio_api/queue/join", b"[]"),
        ("/gradio_api/queue/join", b'{"data": [3], "fn_index": "a", "session_hash": 4}'),
        ("/gradio_api/call/nothing", b'{"data": "x"}'),
        ("/nowhere", None),
        ("/start", b"x"),
        ("/gradio_api/file=../../../../etc/passwd", None),
        ("/gradio_api/file=/etc/passwd", None),
    ],
)
def test_nonsense_is_refused_and_the_server_lives(local: Ask, path: str, body: bytes | None) -> None:
    status, _ = local(path, body, Content_Type="application/json")
    assert 400 <= status < 500
    assert local("/start")[0] == 200


def test_without_the_password_there_are_no_files_and_no_answers(protected: Ask) -> None:
    for path, body in ROUTES:
        assert protected(path, body, Content_Type="application/json")[0] == 401, path
