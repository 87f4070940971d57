"""The live panel: one component that shows any run while it works and after.

The server sends one compact picture of the run (:func:`view`), complete in itself, so a reload, a
second tab and a restarted server all show the same. Only the older part of the log is fetched
apart, by the browser, when it lacks lines. All text is put into the page as text, never as HTML.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component

from backend.jobs.curve import Bucket
from backend.jobs.follow import Follower, RunView, Sample
from backend.jobs.logsearch import find_lines
from backend.jobs.logtext import printable
from backend.jobs.process import running_training
from backend.jobs.runs import Run, find_run, list_runs, runs_root
from ui.calls import Call
from ui.gpu import cards_at_work
from ui.i18n import said, said_problem, texts
from ui.run_names import title
from ui.thumbnails import thumbnail

ASSETS = Path(__file__).parent / "assets"
ACTIVE_SECONDS = 1.2
"""Time between two updates while a job runs."""
IDLE_SECONDS = 6.0

_BYTES = 19_000
"""Most that one update may weigh as JSON."""
_POINTS = 280
_VALIDATION_POINTS = 80
_SPARK_POINTS = 48
_SAMPLES = 40
_MESSAGES = 12
_SAVED = 30
_LOG_LINES = 400
_PUSHED_LOG_BYTES = 4000
_DETAIL = 1500


@dataclass(frozen=True)
class LivePanel:
    """The panel in a page."""

    html: gr.HTML
    refresh: Callable[[str | None], dict[str, Any]]
    """Gives the component's value for a run's id, or for the current run when that is None or empty."""

    def attach(self, run_id: Component | None = None) -> gr.Timer:
        """Keep the panel up to date inside the ``Blocks`` being built: at load and by a timer.

        Args:
            run_id: component whose value is the id of the run to show; without it, the current run.
        """
        timer = gr.Timer(ACTIVE_SECONDS)

        def update(id: str | None = None) -> tuple[dict[str, Any], gr.Timer]:
            now = self.refresh(id)
            return now, gr.Timer(interval(now))

        options: dict[str, Any] = {
            "fn": update,
            "inputs": [run_id] if run_id is not None else [],
            "outputs": [self.html, timer],
            "show_progress": "hidden",
            "api_visibility": "private",
            "queue": False,
        }
        timer.tick(**options)
        gr.on(triggers=None, **options)  # when the page loads, and when another run is chosen
        return timer


def build_live(calls: Sequence[Call] = ()) -> LivePanel:
    """The panel as one component with the element id ``live``, carrying its own style and script.

    ``calls``: what its script may call besides; ``use`` puts a file into the Generate page's form.
    """
    html = gr.HTML(
        value={},  # type: ignore[arg-type] - the component takes any JSON
        elem_id="live",
        html_template='<div class="lv"></div>',
        js_on_load=script(),
        head=f"<style>{(ASSETS / 'live.css').read_text(encoding='utf-8')}</style>",
        apply_default_css=False,
        server_functions=[live_log, live_find, *calls],
        texts=texts("live."),
        uses=any(call.__name__ == "use" for call in calls),
    )
    return LivePanel(html, view)


def script() -> str:
    """The panel's script: its parts, in the order of their names, as one function body."""
    parts = sorted(ASSETS.glob("live-[0-9]-*.js"))
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def interval(now: dict[str, Any]) -> float:
    """Seconds until the next update is worth asking for, after a view."""
    return ACTIVE_SECONDS if now.get("active") or now.get("catching_up") else IDLE_SECONDS


class _Followers:
    """The followers of the runs that somebody looks at."""

    def __init__(self, keep: int = 6) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._followers: OrderedDict[Path, Follower] = OrderedDict()

    def of(self, run: Run) -> Follower:
        with self._lock:
            follower = self._followers.get(run.path) or Follower(run)
            self._followers[run.path] = follower
            self._followers.move_to_end(run.path)
            while len(self._followers) > self._keep:
                self._followers.popitem(last=False)
            return follower


_followers = _Followers()


def current_run(run_id: str | None = None) -> Run | None:
    """The run of that id; without one, the training at work, else the newest run."""
    root = runs_root()
    if run_id:
        return find_run(root, run_id)
    return running_training(root) or next(iter(list_runs(root)), None)


def view(run_id: str | None = None) -> dict[str, Any]:
    """What the panel shows of a run, as JSON of less than 20 kB; ``{"run": None}`` without a run."""
    run = current_run(run_id)
    if run is None:
        return {"run": None, "active": False}
    follower = _followers.of(run)
    with follower.reading() as now:
        return _fitted(now)


def live_log(request: list[Any]) -> dict[str, Any]:
    """Lines of a run's log for the browser: ``[run id, first line wanted]`` -> ``{"start", "lines"}``."""
    run_id, first = (*request, 0)[:2] if request else (None, 0)
    run = current_run(run_id) if isinstance(run_id, str) and run_id else None
    if run is None:
        return {"start": 0, "lines": []}
    with _followers.of(run).reading() as now:
        start, lines = now.log.since(int(first) if isinstance(first, (int, float)) else 0)
    return {"start": start, "lines": lines}


def live_find(request: list[Any]) -> dict[str, Any]:
    """Lines of a run's whole log: ``[run id, words, level]`` -> ``{"lines", "total"}``, the newest ones."""
    run_id, words, level = (*request, "", "", "")[:3]
    run = current_run(run_id) if isinstance(run_id, str) and run_id else None
    if run is None:
        return {"lines": [], "total": 0}
    return asdict(find_lines(run.log, str(words)[:200], str(level), _LOG_LINES))


def _fitted(now: RunView) -> dict[str, Any]:
    """The view with as much log, samples and details as fit."""
    for share in (1.0, 0.5, 0.25, 0.12, 0.06):
        facts = _view(now, share)
        if len(json.dumps(facts, ensure_ascii=False).encode("utf-8")) <= _BYTES:
            break
    return facts


def _view(now: RunView, share: float) -> dict[str, Any]:
    state = now.state
    return {
        "run": now.run.id,
        "name": printable(title(now.run)),
        "state": state.state,
        "active": state.active,
        "resumable": state.resumable,
        "catching_up": now.catching_up,
        "now": round(time.time(), 2),
        "started": state.started,
        "ended": state.ended,
        "phase": [now.phase[:40], said(now.phase_title)[:120], now.done, now.goal, now.unit[:20]],
        "figures": _figures(now),
        "gpu": [[card.busy, card.memory_used, card.memory_total] for card in cards_at_work()]
        if state.active
        else [],
        "chart": _chart(now.curve.reduced(max(int(_POINTS * share), 60)))
        | {"validation": _validation(now.validation.reduced(max(int(_VALIDATION_POINTS * share), 20)))},
        "base": _file_url(now.run.path),
        "samples": _samples(now, int(_SAMPLES * share) or 1),
        "saved": [asdict(saved) for saved in list(now.saved)[-int(_SAVED * share) or -1 :]],
        "result": now.result["path"] if now.result else None,
        "usage": str(((now.result or {}).get("facts") or {}).get("usage") or "")[:200],
        "messages": _messages(now, share),
        "plan": _plan(now.plan, share),
        "log": _log(now, int(_PUSHED_LOG_BYTES * share)),
    }


def _figures(now: RunView) -> dict[str, Any]:
    return {
        "step": now.step,
        "total": now.total,
        "epoch": now.epoch,
        "epochs": now.epochs,
        "left": _short(now.eta),
        "seconds": _short(now.seconds_per_step),
        "images": _short(now.images_per_second),
        "loss": _short(now.loss),
        "smooth": _short(now.curve.buckets[-1].smooth) if now.curve.buckets else None,
        "lr": {key[:40]: _short(rate) for key, rate in list(now.lr.items())[:6]},
        "grad": _short(now.grad_norm),
        "memory": now.memory,
    }


def _chart(buckets: list[Bucket]) -> dict[str, Any]:
    spark = buckets[:: max(1, len(buckets) // _SPARK_POINTS)]
    return {
        "step": [bucket.last for bucket in buckets],
        "low": [_short(bucket.low) for bucket in buckets],
        "high": [_short(bucket.high) for bucket in buckets],
        "smooth": [_short(bucket.smooth) for bucket in buckets],
        "lr": [_short(bucket.extras[0]) if bucket.extras else None for bucket in spark],
        "grad": [_short(bucket.extras[1]) if bucket.extras else None for bucket in spark],
    }


def _validation(buckets: list[Bucket]) -> list[list[float | None]]:
    """``[step, loss]`` of the measurements on pictures held out."""
    return [[bucket.last, _short(bucket.mean)] for bucket in buckets]


def _short(value: float | None) -> float | None:
    """Four significant digits, as JSON keeps them short."""
    return None if value is None else float(f"{value:.4g}")


def _samples(now: RunView, most: int) -> dict[str, Any]:
    """The newest samples; equal prompts are sent once."""
    shown = list(now.samples)[-most:]
    prompts = list(dict.fromkeys(sample.prompt[:300] for sample in shown))
    return {
        "count": len(now.samples),
        "prompts": prompts,
        "items": [_sample(now.run, sample, prompts) for sample in shown],
    }


def _sample(run: Run, sample: Sample, prompts: list[str]) -> list[Any]:
    return [
        quote(sample.path),
        _small(run, sample),
        sample.step,
        sample.index,
        prompts.index(sample.prompt[:300]),
        sample.seed,
    ]


def _small(run: Run, sample: Sample) -> str | None:
    """Address of a small copy: the run's own, or one made here."""
    if sample.thumb and (run.path / sample.thumb).is_file():
        return quote(sample.thumb)
    small = thumbnail(run.path / sample.path)
    return quote(small.relative_to(run.path).as_posix()) if small else None


def _file_url(folder: Path) -> str:
    """The folder's address below Gradio's root, with every odd character escaped."""
    return "/gradio_api/file=" + quote(folder.resolve().as_posix(), safe="/:") + "/"


def _messages(now: RunView, share: float) -> list[dict[str, Any]]:
    """Errors that ended the run first, then the newest of the rest."""
    known = [message.problem.get("what") for message in now.messages if message.kind == "error"]
    derived = [problem for problem in now.state.problems if printable(str(problem.get("what"))) not in known]
    ending = [{"kind": "error", "text": "", "problem": _problem(problem, share)} for problem in derived]
    rest = [
        {
            "kind": message.kind,
            "text": said(message.text)[: max(int(600 * share), 150)],
            "problem": _problem(message.problem, share),
            "count": message.count,
        }
        for message in list(now.messages)[-max(2, int(_MESSAGES * share)) :]
    ]
    order = {"error": 0, "warning": 1}
    newest_first = rest[::-1]
    return ending + sorted(newest_first, key=lambda message: order.get(str(message["kind"]), 2))


def _problem(problem: dict[str, Any], share: float) -> dict[str, str]:
    long, problem = int(_DETAIL * share), said_problem(problem)
    parts = {
        key: printable(str(problem[key])) for key in ("what", "where", "why", "next") if problem.get(key)
    }
    detail = printable(str(problem.get("detail") or ""))[-long:]
    return {key: text[:400] for key, text in parts.items()} | ({"detail": detail} if detail else {})


def _plan(plan: dict[str, Any], share: float) -> list[list[str]]:
    """Facts as pairs of text, in the order the job told them; its notes stand among the messages."""
    rows = [[key.replace("_", " "), _plain(value)] for key, value in plan.items() if key != "notes"]
    return [[said(key)[:40], printable(said(value))[:160]] for key, value in rows if value][: int(24 * share)]


def _plain(value: Any) -> str:
    if isinstance(value, dict) and value.keys() >= {"size", "count"}:
        return f"{_plain(value['size'])} ({value['count']})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(item, int) for item in value):
        return " × ".join(map(str, value))
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return "" if value is None else str(value)


def _log(now: RunView, most: int) -> dict[str, Any]:
    """The newest lines in about ``most`` bytes, with the number of the first.

    ``from`` says where in the file this numbering begins: another value means new numbers.
    """
    start, lines = now.log.since(now.log.end - _LOG_LINES)
    size, first = 0, len(lines)
    while first > 0 and size + len(lines[first - 1].encode("utf-8")) + 3 <= most:
        first -= 1
        size += len(lines[first].encode("utf-8")) + 3
    return {"from": now.log_start, "start": start + first, "lines": lines[first:], "oldest": start}
