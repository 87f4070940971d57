"""Measure the page: start of the process, bytes, load, presets and the live chart in Chromium. Prints JSON.

``python tools/bench_page.py [--chromium PATH] [--loads N] [--events N]``. The browser part needs playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import RunFault, run_main
from backend.jobs.events import EventLog
from backend.jobs.process import register_current_process
from backend.jobs.runs import create_run

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    f"--{flag}" for flag in ("no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run")
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--events", type=int, default=40, help="steps whose way into the chart is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        started = time.monotonic()
        process, url = _start(Path(home))
        try:
            found = _server_figures(process, url, started)
            if options.chromium:
                found |= _browser_figures(options.chromium, url, options.loads) if options.loads else {}
                found |= _chart_figures(options.chromium, url, Path(home), process.pid, options.events)
        finally:
            process.terminate()
            process.wait(20)
    print(json.dumps(found, indent=1))


def _start(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "ATELIER_HOME": str(home)}, stdout=subprocess.DEVNULL
    )
    return process, f"http://127.0.0.1:{port}/"


def _server_figures(process: subprocess.Popen[bytes], url: str, started: float) -> dict[str, Any]:
    """Wall and CPU seconds from the process's start to its first answer, and that answer's size."""
    import psutil

    while True:
        try:
            page = urllib.request.urlopen(url, timeout=10).read()
            break
        except OSError:
            if process.poll() is not None:
                raise RunFault("the page did not start", next="start app.py to see why") from None
            time.sleep(0.05)
    wall = time.monotonic() - started
    times = psutil.Process(process.pid).cpu_times()
    return {
        "start_wall_s": round(wall, 2),
        "start_cpu_s": round(times.user + times.system, 2),
        "html_bytes": len(page),
        "server_rss_mb": psutil.Process(process.pid).memory_info().rss // 2**20,
    }


def _browser_figures(chromium: str, url: str, loads: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        found = [_one_load(browser, url) for _ in range(loads)]
        browser.close()
    return {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]}


def _one_load(browser: Any, url: str) -> dict[str, float]:
    """A first visit, a preset, a view and a page switch. CPU is the page's main thread."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    tools = context.new_cdp_session(page)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    tools.send("Network.enable")
    sizes: list[float] = []
    tools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))

    def cpu() -> float:
        metrics = tools.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    found: dict[str, float] = {}
    before = time.monotonic()
    page.goto(url)
    page.wait_for_selector("[data-ready]")
    found["load_wall_s"], found["load_cpu_s"] = time.monotonic() - before, cpu()
    found["transferred_bytes"], found["requests"] = sum(sizes), len(sizes)
    page.wait_for_timeout(500)
    page.select_option("#preset-choice", "sd15/style")
    at, before = cpu(), time.monotonic()
    page.click("#btn-load-preset")
    page.wait_for_function("document.querySelector('#opt-network_dim').value === '32'")
    found["preset_wall_s"], found["preset_cpu_s"] = time.monotonic() - before, cpu() - at
    page.wait_for_timeout(300)
    at, before = cpu(), time.monotonic()
    page.click(".at-tools [data-view=all]")
    page.wait_for_selector("#opt-seed", state="visible")
    found["all_settings_wall_s"], found["all_settings_cpu_s"] = time.monotonic() - before, cpu() - at
    before = time.monotonic()
    page.click('.at-head a[href="./runs"]')
    page.wait_for_selector("#runs h1")
    found["other_page_wall_s"] = time.monotonic() - before
    context.close()
    return found


_WATCH = """() => {
  const plane = document.querySelector(".lv-plane");
  window.seen = {};
  new MutationObserver(() => {
    const step = plane.getAttribute("aria-label").match(/step (\\d+)/)?.[1];
    // Two frames on, the point is on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => (window.seen[step] ??= Date.now() / 1000)));
  }).observe(plane, { attributes: true, attributeFilter: ["aria-label"] });
}"""
"""Notes in the page when each step's point is drawn."""


def _chart_figures(chromium: str, url: str, home: Path, server: int, events: int) -> dict[str, float]:
    """From a line in a run's ``events.jsonl`` to its point on the screen, with what that costs.

    The run is a folder that this process writes into as a trainer does; its steps come at random times, so
    that they meet every moment between two updates.
    """
    import psutil
    from playwright.sync_api import sync_playwright

    run = create_run(home / "runs", "measured", "")
    register_current_process(run)
    log = EventLog(run.events)
    log.emit("state", state="running")
    for step in range(1, 101):
        _step(log, step)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_selector(".lv-plane[aria-label*='step 100,']", state="attached")
        page.evaluate(_WATCH)
        before, started = psutil.Process(server).cpu_times(), time.monotonic()
        waits = [_one_event(page, log, step) for step in range(101, 101 + events)]
        after, lasted = psutil.Process(server).cpu_times(), time.monotonic() - started
        browser.close()
    log.emit("state", state="finished")
    waits.sort()
    return {
        "event_to_chart_median_s": round(statistics.median(waits), 3),
        "event_to_chart_p95_s": round(waits[min(len(waits) - 1, int(0.95 * len(waits)))], 3),
        "watching_server_cpu_share": round((sum(after[:2]) - sum(before[:2])) / lasted, 3),
    }


def _step(log: EventLog, step: int) -> None:
    log.emit("step", step=step, total=1000, epoch=1, epochs=1, loss=1 / step, lr={"unet": 1e-4}, seconds=0.5)


def _one_event(page: Any, log: EventLog, step: int) -> float:
    """Seconds until a new step is seen in the chart."""
    time.sleep(random.uniform(0, 1.5))
    written = time.time()
    _step(log, step)
    page.wait_for_function(f"window.seen[{step}]", timeout=30_000)
    return float(page.evaluate(f"window.seen[{step}]")) - written


if __name__ == "__main__":
    sys.exit(run_main(main))
