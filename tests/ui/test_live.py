"""The live panel: small updates, text that stays text, the same view wherever one looks."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest
from PIL import Image
from playwright.sync_api import expect

from backend.jobs.events import EventLog
from backend.jobs.logsearch import Level
from backend.jobs.process import register_current_process
from backend.jobs.runs import Run, create_run
from backend.jobs.state import ACTIVE, ENDED

EVIL = '<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    return create_run(home / "runs", f"my cat {EVIL} 猫", "a = 1\n")


def fill(run: Run, steps: int = 300, samples: int = 3, lines: int = 300) -> EventLog:
    """A run in the middle of its work, with hostile text wherever text can be."""
    events = EventLog(run.events)
    events.emit("state", state="starting")
    events.emit("plan", family="sd1", steps=steps, **{f"fact {EVIL}": EVIL})
    events.emit("phase", name="train", title=f"Training {EVIL}")
    events.emit("state", state="running")
    for number in range(1, steps + 1):
        events.emit(
            "step", step=number, total=2 * steps, epoch=1, epochs=2, loss=0.1234567 + 1 / number, average=0.1,
            lr={"unet": 1.234567e-4, "text encoder": 1e-5}, grad_norm=0.987654, seconds=0.5, images_per_second=2.0,
        )  # fmt: skip
        if number % 5 == 0:
            events.emit("validation", step=number, epoch=1, when="step", loss=0.3 + 1 / number, pictures=2)
    for number in range(samples):
        path = f"samples/{number:06d} <b>#1 50% ü&?.png"
        Image.new("RGB", (320, 320), (200, number % 256, 40)).save(run.path / path)
        events.emit(
            "sample", step=number * 50, epoch=1, index=0, prompt=f"{EVIL} {number}", path=path, seed=7
        )
    events.emit("saved", step=100, epoch=1, kind="epoch", path=f"checkpoints/{EVIL}.safetensors")
    problem = {"what": f"a caption {EVIL} was cut", "next": "shorten it", "detail": EVIL * 50}
    events.emit("warning", text="", problem=problem)
    run.log.write_text(
        "".join(f"line {number} {EVIL if number % 50 == 0 else ''}\n" for number in range(lines))
    )
    return events


def test_without_a_run_there_is_nothing_to_show(home: Path) -> None:
    from ui.live import IDLE_SECONDS, interval, view

    assert view(None) == {"run": None, "active": False}
    assert view("../etc") == {"run": None, "active": False}
    assert interval(view(None)) == IDLE_SECONDS


def test_the_training_at_work_is_shown_before_newer_ones(home: Path) -> None:
    from ui.live import ACTIVE_SECONDS, interval, view

    first = create_run(home / "runs", "first", "")
    register_current_process(first)
    second = create_run(home / "runs", "second", "")
    assert view(None)["name"] == "first"
    assert interval(view(None)) == ACTIVE_SECONDS
    assert view(second.id)["state"] == "created"
    EventLog(first.events).emit("state", state="finished")
    assert view(None)["name"] == "second"


def test_figures_and_curve_agree_with_the_events(run: Run) -> None:
    from ui.live import view

    fill(run, steps=10)
    now = view(run.id)
    assert (now["figures"]["step"], now["figures"]["total"], now["figures"]["lr"]["unet"]) == (
        10,
        20,
        1.235e-4,
    )
    assert now["chart"]["step"] == list(range(1, 11))
    assert now["chart"]["low"][1] == pytest.approx(0.6235, abs=1e-4)
    assert now["chart"]["validation"] == [[5, 0.5], [10, 0.4]]
    assert ["family", "sd1"] in now["plan"]
    events = EventLog(run.events)
    events.emit(
        "plan", buckets=[{"size": [512, 768], "count": 9}], reg_images=None, notes=[{"what": "x"}], lr=1e-4
    )
    assert view(run.id)["plan"] == [["buckets", "512 × 768 (9)"], ["lr", "0.0001"]]


def test_an_update_stays_below_20_kb_in_the_worst_case(run: Run) -> None:
    from ui.live import view

    events = fill(run, steps=5000, samples=0, lines=0)
    for number in range(150):
        path = f"samples/{'深' * 60}{number}.png"
        events.emit(
            "sample", step=number, epoch=1, index=0, prompt=f"{number} " + "長い説明" * 300, path=path, seed=1
        )
        events.emit(
            "saved", step=number, epoch=1, kind="step", path=f"checkpoints/{'名' * 60}-{number}.safetensors"
        )
        problem = {
            key: f"{number} {key} " + "説明" * 400 for key in ("what", "where", "why", "next", "detail")
        }
        events.emit("warning", text="", problem=problem)
    events.emit("plan", **{f"fact {number}": "事実" * 200 for number in range(100)})
    run.log.write_text("\n".join("ログ" * 500 for _ in range(300)), encoding="utf-8")
    while view(run.id)["catching_up"]:
        pass  # a machine at work reads it in several parts
    now = view(run.id)
    assert len(json.dumps(now, ensure_ascii=False).encode()) < 20_000
    assert len(now["chart"]["step"]) >= 30
    assert 20 <= len(now["chart"]["validation"]) <= 80 and now["chart"]["validation"][-1][0] == 5000
    assert now["samples"]["items"]


def test_samples_are_served_small_and_their_names_escaped(run: Run) -> None:
    from ui.live import view

    fill(run)
    now = view(run.id)
    path, small, *_ = now["samples"]["items"][0]
    assert not re.search(r"[<>#?&\" ]", path + small)
    assert (run.path / unquote(path)).is_file()
    with Image.open(run.path / unquote(small)) as image:
        assert max(image.size) == 256
    assert now["base"].startswith("/gradio_api/file=/")
    (run.path / unquote(path)).write_bytes(b"half a picture")
    os.utime(run.path / unquote(path), (time.time() + 5, time.time() + 5))
    assert view(run.id)["samples"]["items"][0][1] is None


def test_older_log_lines_can_be_fetched(run: Run) -> None:
    from ui.live import live_log, view

    fill(run, lines=1000)
    pushed = view(run.id)["log"]
    got = live_log([run.id, pushed["oldest"]])
    assert got["start"] == pushed["oldest"]
    assert got["lines"][-1].strip() == "line 999"
    assert len(got["lines"]) == 400
    for request in ([], [None], ["../x", 0], [run.id, "x"]):
        assert set(live_log(request)) == {"start", "lines"}


def test_an_interrupted_run_says_what_to_do(run: Run) -> None:
    from ui.live import view

    fill(run)
    attempt = {"process": {"pid": 2**22 - 1, "created": 1.0}, "started": 1.0}
    run.job.write_text(json.dumps({"name": "x", "attempts": [attempt]}))
    now = view(run.id)
    assert now["state"] == "interrupted"
    assert now["messages"][0]["kind"] == "error"
    assert "start it again" in now["messages"][0]["problem"]["next"]


def test_every_text_of_the_panel_exists_and_is_used(root: Path) -> None:
    from ui.live import script as whole

    script = whole()
    used = set(re.findall(r'\bsay\("(\w+)"', script)) | set(re.findall(r'\bfigure\("(\w+)"', script))
    listed = re.findall(r"\[((?:\"\w+\",? ?)+)\]\.forEach\(\(key\) => figure", script)
    used |= {word for names in listed for word in re.findall(r"\w+", names)}
    used |= {"elapsed", "took", "note", "warning", "error"} | (ACTIVE | ENDED | {"created"})
    used |= {f"kind_{kind}" for kind in ("result", "epoch", "step", "state", "recovery")}
    used |= {"phase_sampling", "phase_saving"} | {f"log_{level}" for level in get_args(Level)}
    known = {
        key[5:]
        for key in json.loads((root / "ui/i18n/en.json").read_text("utf-8"))
        if key.startswith("live.")
    }
    assert used == known


def test_the_whole_log_is_searched(run: Run) -> None:
    from ui.live import live_find

    lines = [f"line {number}" for number in range(900)]
    lines += [
        "WARNING: little room",
        "step 5/9 [00:01<00:02, 3.0it/s]",
        "RuntimeError: no room",
        "token=" + "x" * 30,
    ]
    run.log.write_text("\n".join(lines), encoding="utf-8")
    sevens = [line for line in lines[:900] if "7" in line]
    assert live_find([run.id, "7 LINE", ""]) == {"lines": sevens, "total": len(sevens)}
    assert live_find([run.id, "", "warning"])["lines"] == ["WARNING: little room", "RuntimeError: no room"]
    assert live_find([run.id, "ROOM", "error"])["lines"] == ["RuntimeError: no room"]
    newest = live_find([run.id, "line", "all"])
    assert (len(newest["lines"]), newest["total"]) == (400, 900)
    assert live_find([run.id, "x", "all"])["lines"] == []
    assert live_find([None]) == {"lines": [], "total": 0}


def test_the_panel_loads_no_torch_and_parses_no_html(root: Path) -> None:
    code = "import sys, ui.live; sys.exit(int(any(m in sys.modules for m in ('torch', 'diffusers', 'transformers'))))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=120).returncode == 0
    script = "".join(path.read_text(encoding="utf-8") for path in (root / "ui/assets").glob("live*.js"))
    assert len(script) > 10_000
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script)


PAGE = """
import sys
import gradio as gr
from backend.system.paths import runs_root
from ui.live import build_live
with gr.Blocks() as page:
    build_live().attach()
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), run_history=False, footer_links=[],
            allowed_paths=[str(runs_root())])
"""


@pytest.fixture
def page_address(home: Path, root: Path) -> Iterator[str]:
    """A page with nothing but the panel, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(root)}
    server = subprocess.Popen([sys.executable, "-c", PAGE, str(port)], cwd=root, env=environment)
    address = f"http://127.0.0.1:{port}/"
    try:
        _answers(address)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def _answers(address: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@pytest.mark.browser
def test_in_a_browser(run: Run, page_address: str, browser) -> None:
    register_current_process(run)
    events = fill(run)
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    hosts: set[str] = set()
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: hosts.add(re.sub(r"^\w+://([^:/]*).*", r"\1", request.url)))
    tab.goto(page_address)
    tab.wait_for_selector('#live .lv[data-state="running"]')
    expect(tab.locator("#live .lv-name")).to_contain_text(EVIL)
    expect(tab.locator("#live .lv-bar")).to_have_attribute("aria-valuenow", "50")
    expect(tab.locator("#live .lv-smooth")).to_have_count(1)
    expect(tab.locator("#live .lv-held-dot")).to_have_count(60)
    expect(tab.locator("#live .lv-key-held")).to_be_visible()
    tab.focus("#live .lv-plane")
    tab.keyboard.press("End")
    expect(tab.locator("#live .lv-tip")).to_contain_text("held out 0.3033")
    _open_the_log(tab)
    _look_at_a_sample(tab)
    _follow(tab, events)
    second = browser.new_page(viewport={"width": 390, "height": 800})
    second.goto(page_address)
    second.wait_for_selector('#live .lv[data-state="running"]')
    tab.reload()
    tab.wait_for_selector('#live .lv[data-state="running"]')
    for look in (tab, second):
        expect(look.locator("#live .lv-figure dd >> nth=0")).to_have_text(re.compile(r"301\s*of\s*600"))
        assert not look.evaluate("window.attacked")
    second.wait_for_function("document.documentElement.scrollWidth <= 390")
    assert faults == []
    assert hosts <= {"127.0.0.1", ""}
    events.emit("state", state="finished")
    tab.wait_for_selector('#live .lv[data-state="finished"]')
    for look in (tab, second):
        look.close()


def _open_the_log(tab) -> None:
    tab.click("#live .lv-logbox > summary")
    tab.wait_for_function("document.querySelectorAll('#live .lv-log > div').length === 300")
    expect(tab.locator("#live .lv-log > div >> nth=0")).to_have_text(f"line 0 {EVIL}")
    expect(tab.locator("#live .lv-log > div >> nth=299")).to_have_text("line 299")


def _look_at_a_sample(tab) -> None:
    tab.wait_for_function("document.querySelector('#live .lv-thumb img').naturalWidth === 256")
    tab.click("#live .lv-thumb >> nth=0")
    tab.wait_for_function("document.querySelector('#live dialog[open] img').naturalWidth === 320")
    expect(tab.locator("#live .lv-caption")).to_have_text(f"{EVIL} 0")
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#live .lv-caption")).to_have_text(f"{EVIL} 1")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#live dialog", state="hidden")


def _follow(tab, events: EventLog) -> None:
    before = time.monotonic()
    events.emit("step", step=301, total=600, loss=0.1, lr={"unet": 1e-4}, seconds=0.5)
    tab.wait_for_function("document.querySelector('#live .lv-figure dd').textContent.startsWith('301')")
    assert time.monotonic() - before < 6
