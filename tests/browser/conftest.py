"""The real page in headless Chromium: a server of its own on a free port, with a home of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """``app.py`` as a user starts it. It is ended by its own process id, its trainings are not."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {**os.environ, "ATELIER_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        log = (self.home / "server.log").open("a", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(self.port), "--no-browser"],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.home / "server.log").read_text(encoding="utf-8")
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the page did not answer")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def log(self) -> str:
        return (self.home / "server.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running page with an empty home."""
    found = Server(tmp_path_factory.mktemp("home"))
    found.start()
    yield found
    found.stop()
    end_trainings(found.home)


def end_trainings(home: Path) -> None:
    """End what a test started, by the process ids in its own runs."""
    from backend.jobs.control import stop_now
    from backend.jobs.runs import list_runs
    from backend.jobs.state import state

    for run in list_runs(home / "runs"):
        if state(run).active:
            waiting = stop_now(run, grace=1.0)
            if waiting:
                waiting.join(20)


@dataclass
class Watched:
    """What a page did besides what was asked of it."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A fresh window on the Train page. The test fails for console errors and outside requests."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, base_url=server.url)
    window = context.new_page()
    watched = watch(window)
    open_train(window)
    yield window
    context.close()
    assert watched.outside == []
    assert watched.errors == []


def watch(window: Any) -> Watched:
    """Collect errors of the page and requests to other hosts."""
    watched = Watched()
    restarted = (
        "ERR_CONNECTION_REFUSED",
        "ERR_CONNECTION_RESET",
        "ERR_INCOMPLETE_CHUNKED",
        "ERR_EMPTY_RESPONSE",
    )
    window.on("pageerror", lambda error: watched.errors.append(str(error)))
    window.on(
        "console",
        lambda said: (
            said.type == "error"
            and not any(sign in said.text for sign in restarted)
            and watched.errors.append(said.text)
        ),
    )
    window.on("request", lambda request: _is_outside(request.url) and watched.outside.append(request.url))
    return watched


def _is_outside(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def open_train(window: Any, path: str = "/") -> None:
    window.goto(path)
    window.wait_for_selector("[data-ready]", timeout=30_000)
