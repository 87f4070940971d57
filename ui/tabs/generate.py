"""The Generate page: try a model with and without what it has learnt."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context as GradioContext

from backend.errors import AtelierError, InputError, Problem
from backend.generate.protocol import ENCODERS
from backend.jobs.events import read_events
from backend.jobs.runs import Run, list_runs
from ui.context import Context
from ui.form import asset
from ui.i18n import t
from ui.studio import Studio, View

FORM = "generate"
SAMPLERS = (
    ("Euler a", "euler_a"),
    ("DPM++ 2M Karras", "dpmsolver++_karras"),
    ("DPM++ 2M", "dpmsolver++"),
    ("DPM++ 2M SDE", "dpmsolver++_sde"),
    ("UniPC", "unipc"),
    ("DDIM", "ddim"),
    ("Euler", "euler"),
    ("Heun", "heun"),
    ("LMS", "lms"),
    ("PLMS", "pndm"),
    ("DPM2", "dpm_2"),
    ("DPM2 a", "dpm_2_a"),
    ("DPM++ 2S", "dpmsingle"),
    ("DPM-Solver 2M", "dpmsolver"),
)
"""(label, name) of every sampler; the commonly used ones first."""
DEFAULTS: dict[str, Any] = {
    "model": "",
    "lora": "",
    "strength": 1.0,
    "compare": False,
    "prompt": "",
    "negative": "",
    "steps": 25,
    "scale": 7.0,
    "sampler": "euler_a",
    "width": 512,
    "height": 512,
    "seed": "",
    "count": 1,
    "clip_skip": 1,
    "vae": "",
    **dict.fromkeys(ENCODERS, ""),
}
_REQUEST = ("prompt", "negative", "steps", "scale", "sampler", "width", "height", "count", "clip_skip")
_PATHS = ("model", "lora", "vae", *ENCODERS)
_RUNS_SHOWN = 12
_FILES_SHOWN = 8
_TAIL = 256 * 1024
_PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class GeneratePage:
    """What the server does for the Generate page."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.studio = Studio(context)

    def values(self) -> dict[str, Any]:
        """What the form shows when it is opened: the last values, else sensible ones."""
        draft = self.context.drafts.load(FORM) or {}
        values = {**DEFAULTS, **{key: value for key, value in draft.items() if key in DEFAULTS}}
        return {**values, "model": values["model"] or next(iter(self.models()), "")}

    def models(self) -> list[str]:
        """Base models used before, here or for training."""
        drafts = self.context.drafts
        own = drafts.recent(FORM).get("model", [])
        trained = drafts.recent("train").get("pretrained_model_name_or_path", [])
        return list(dict.fromkeys([*own, *trained]))

    def loras(self) -> list[tuple[str, str]]:
        """(label, path) of what can be tried: none, results and checkpoints of runs, files used before."""
        found: dict[str, str] = {}
        for run in list_runs(self.context.runs)[:_RUNS_SHOWN]:
            for path in trained_files(run):
                label = f"{path.name}  ·  {run.name}"
                found.setdefault(str(path), label if found else t("gen.last_result", label=label))
        for path in self.context.drafts.recent(FORM).get("lora", []):
            found.setdefault(path, Path(path).name)
        return [(t("gen.no_lora_choice"), ""), *((label, path) for path, label in found.items())]

    def start(self, values: Mapping[str, Any]) -> None:
        """Begin to draw. Raises InputError when something is missing or wrong."""
        values = {**values, **{key: _path(values.get(key)) for key in _PATHS}}
        if missing := [_missing(key, values[key]) for key in _PATHS if _is_missing(values[key])]:
            raise InputError(missing)
        self.context.drafts.save(FORM, dict(values))
        request = {key: values[key] for key in _REQUEST} | {"seed": _seed(values["seed"])}
        for key in ("width", "height", "steps", "count", "scale"):
            if request[key] is None:
                raise InputError(t("gen.empty_number", label=t(f"gen.{key}")), key=key)
        self.studio.start({**values, "request": request})
        used = {key: values[key] for key in ("model", "lora") if values[key]}
        self.context.drafts.remember(FORM, used)


def trained_files(run: Run) -> list[Path]:
    """Network files a run made, its result first, then the newest."""
    end = run.events.stat().st_size if run.events.is_file() else 0
    records, _ = read_events(run.events, max(0, end - _TAIL))
    results = [Path(str(record.get("path"))) for record in records if record["type"] == "result"]
    folder = run.path / "checkpoints"
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in dict.fromkeys([*results[-1:], *files[:_FILES_SHOWN]]) if path.is_file()]


def _path(value: object) -> str:
    """A path as people paste it: quotes and spaces around it do not count."""
    text = str(value or "").strip().strip("\"'").strip()
    return str(Path(text).expanduser()) if text else ""


def _is_missing(path: str) -> bool:
    return bool(path) and not Path(path).exists()


def _missing(key: str, path: str) -> Problem:
    label = t(f"gen.{key}")
    return Problem(t("gen.missing", label=label, path=path), next=t("gen.missing_next"), key=key)


def _seed(value: object) -> int | None:
    """The seed written; None (a random one) when empty or below 0."""
    text = str(value if value is not None else "").strip()
    if not text:
        return None
    try:
        seed = int(text)
    except ValueError:
        problem = Problem(t("gen.bad_seed", value=text[:40]), next=t("gen.bad_seed_next"), key="seed")
        raise InputError(problem) from None
    return seed if 0 <= seed < 2**63 else None


# -- what the page shows -------------------------------------------------------


def status_html(view: View, problems: list[dict[str, Any]] | None = None) -> str:
    """Progress, result or problems, safe for any text in them."""
    refused = problems is not None
    problems = problems if problems is not None else view.problems
    parts = [_problem_html(problem) for problem in problems]
    if view.busy:
        parts.append(_progress_html(view))
    elif view.shots or (view.stopped and not refused):
        parts.append(_summary_html(view))
    elif not problems:
        parts.append(f'<p class="gen-muted">{_e(t("gen.hint"))}</p>')
    parts += [f'<p class="gen-note">{_e(note)}</p>' for note in view.notes]
    return f'<div class="gen-status" role="status">{"".join(parts)}</div>'


def _progress_html(view: View) -> str:
    match view.state:
        case "starting":
            text = t("gen.starting")
        case "loading":
            text = t("gen.loading", name=view.detail)
        case "stopping":
            text = t("gen.stopping")
        case _:
            picture = min(view.done + 1, view.total)
            text = t("gen.drawing", picture=picture, total=view.total, step=view.step, steps=view.steps)
    share = (view.done + (view.step / view.steps if view.steps else 0)) / max(view.total, 1)
    bar = f'value="{min(share, 1):.3f}"' if view.state == "drawing" else ""
    return f'<p class="gen-step">{_e(text)}</p><progress max="1" {bar} aria-label="{_e(text)}"></progress>'


def _summary_html(view: View) -> str:
    key = "gen.stopped" if view.stopped else "gen.finished"
    text = t(key, count=len(view.shots), seconds=f"{view.seconds:.1f}")
    seed = f'<span>{_e(t("gen.seed"))} <code id="gen-seed-used">{view.seed}</code></span>'
    place = _e(str(view.shots[0].path.parent)) if view.shots else ""
    folder = f'<span class="gen-muted gen-folder">{place}</span>' if place else ""
    return f'<p class="gen-done"><span>{_e(text)}</span>{seed}{folder}</p>'


def _problem_html(problem: Mapping[str, Any]) -> str:
    rest = "".join(f"<p>{_e(str(problem[key]))}</p>" for key in ("where", "why", "next") if problem.get(key))
    what, detail = _e(str(problem.get("what", ""))), problem.get("detail")
    if detail:
        summary = _e(t("gen.detail"))
        rest += f"<details><summary>{summary}</summary><pre>{_e(str(detail))}</pre></details>"
    return f'<div class="gen-problem" role="alert"><strong>{what}</strong>{rest}</div>'


def training_html(name: str | None) -> str:
    """A word that the graphics card is shared, while a training runs."""
    return f'<p class="gen-training">{_e(t("gen.training", name=name))}</p>' if name else ""


def _e(text: str) -> str:
    return html.escape(text, quote=True)


def gallery_of(view: View) -> Any:
    """The pictures with their captions; those of one seed side by side when two belong together."""
    shots = [(str(shot.path), f"{shot.caption} · {shot.seed}".lstrip(" ·")) for shot in view.shots]
    columns = view.columns or min(max(len(shots), 1), 3)
    return gr.Gallery(value=shots, columns=columns, visible=bool(shots))


# -- the page ------------------------------------------------------------------


def build(context: Context) -> None:
    """Draw the page inside the current route."""
    page = GeneratePage(context)
    gr.HTML(f"<style>{asset('generate.css')}</style>", padding=False, elem_id="gen-style")
    with gr.Column(elem_id="generate", elem_classes=["at-page"]):
        gr.HTML(f"<h1>{_e(t('gen.title'))}</h1><p>{_e(t('gen.lead'))}</p>", padding=False, elem_id="gen-head")
        with gr.Row(elem_id="gen-columns"):
            with gr.Column(scale=5, min_width=300, elem_id="gen-form"):
                fields = _fields()
            with gr.Column(scale=7, min_width=300, elem_id="gen-result"):
                shown = _result()
    _wire(page, fields, shown)


def _fields() -> dict[str, Any]:
    """The form, by key. Every field's element id is ``gen-<key>``."""
    fields = _model_fields()
    fields["prompt"] = gr.Textbox(label=t("gen.prompt"), lines=3, max_lines=8, elem_id="gen-prompt")
    fields["negative"] = gr.Textbox(label=t("gen.negative"), lines=1, max_lines=6, elem_id="gen-negative")
    with gr.Row(elem_classes=["gen-pair"]):
        fields["steps"] = _slider("steps", 1, 100, 1)
        fields["scale"] = _slider("scale", 1, 20, 0.5)
    with gr.Row(elem_classes=["gen-pair"]):
        fields["width"] = _number("width", 8)
        fields["height"] = _number("height", 8)
    with gr.Row(elem_classes=["gen-pair"]):
        fields["seed"] = gr.Textbox(
            label=t("gen.seed"), placeholder=t("gen.seed_random"), elem_id="gen-seed", min_width=110
        )
        fields["count"] = _number("count", 1, minimum=1, maximum=100)
    with gr.Accordion(t("gen.more"), open=False, elem_id="gen-more"):
        fields["sampler"] = gr.Dropdown(list(SAMPLERS), label=t("gen.sampler"), elem_id="gen-sampler")
        fields["clip_skip"] = gr.Slider(
            1, 12, 1, step=1, label=t("gen.clip_skip"), info=t("gen.clip_skip_info"), elem_id="gen-clip-skip"
        )
        for key in ("vae", *ENCODERS):
            name, own = f"gen-{key.replace('_', '-')}", t("gen.vae_own")
            fields[key] = gr.Textbox(label=t(f"gen.{key}"), placeholder=own, elem_id=name)
    return fields


def _model_fields() -> dict[str, Any]:
    model, lora = _choice("model"), _choice("lora")
    with gr.Row(elem_classes=["gen-pair"]):
        strength = _slider("strength", -1, 2, 0.05)
        compare = gr.Checkbox(
            label=t("gen.compare"), info=t("gen.compare_info"), elem_id="gen-compare", min_width=110
        )
    return {"model": model, "lora": lora, "strength": strength, "compare": compare}


def _choice(key: str) -> gr.Dropdown:
    info = t(f"gen.{key}_info")
    return gr.Dropdown([], label=t(f"gen.{key}"), info=info, elem_id=f"gen-{key}", allow_custom_value=True)


def _slider(key: str, low: float, high: float, step: float) -> gr.Slider:
    value = float(DEFAULTS[key])
    return gr.Slider(low, high, value, step=step, label=t(f"gen.{key}"), elem_id=f"gen-{key}", min_width=110)


def _number(key: str, step: int, minimum: int = 64, maximum: int = 4096) -> gr.Number:
    return gr.Number(
        DEFAULTS[key],
        label=t(f"gen.{key}"),
        precision=0,
        step=step,
        minimum=minimum,
        maximum=maximum,
        elem_id=f"gen-{key}",
        min_width=110,
    )


def _result() -> dict[str, Any]:
    with gr.Row(elem_id="gen-actions"):
        start = gr.Button(t("gen.start"), variant="primary", elem_id="gen-start", min_width=150, scale=3)
        stop = gr.Button(t("gen.stop"), interactive=False, elem_id="gen-stop", min_width=90, scale=1)
        unload = gr.Button(t("gen.unload"), elem_id="gen-unload", min_width=90, scale=1)
    return {
        "start": start,
        "stop": stop,
        "unload": unload,
        "training": gr.HTML(elem_id="gen-training", padding=False, visible=False),
        "status": gr.HTML(elem_id="gen-status", padding=False),
        "gallery": gr.Gallery(
            show_label=False,
            interactive=False,
            object_fit="contain",
            height="auto",
            buttons=["download", "fullscreen"],
            visible=False,
            elem_id="gen-gallery",
        ),
        "timer": gr.Timer(0.5, active=False),
        "seen": gr.State(-1),
    }


def _wire(page: GeneratePage, fields: dict[str, Any], shown: dict[str, Any]) -> None:
    """Connect the buttons, the timer and the page's opening with the server."""
    outputs = [shown[name] for name in ("status", "training", "gallery", "seen", "start", "stop", "timer")]

    def looked(seen: int, problems: list[dict[str, Any]] | None = None) -> list[Any]:
        view, training = page.studio.view(), page.studio.training()
        ready = len(view.shots)
        return [
            status_html(view, problems),
            gr.HTML(training_html(training), visible=training is not None),
            gallery_of(view) if ready != seen else gr.skip(),
            ready,
            gr.Button(interactive=not view.busy),
            gr.Button(interactive=view.busy and view.state != "stopping"),
            gr.Timer(active=view.busy),
        ]

    def start(*values: Any) -> list[Any]:
        try:
            page.start(dict(zip(fields, values, strict=True)))
        except AtelierError as error:
            return looked(-1, [problem.as_dict() for problem in error.problems])
        return looked(-1)

    def stop(seen: int) -> list[Any]:
        page.studio.stop()
        return looked(seen)

    def unload() -> None:
        busy = page.studio.view().busy
        gr.Info(t("gen.busy" if busy else "gen.unloaded" if page.studio.release() else "gen.nothing_loaded"))

    def opened() -> list[Any]:
        values = page.values()
        choices = {"model": page.models(), "lora": page.loras()}
        filled = [
            gr.Dropdown(choices=choices[key], value=value) if key in choices else value
            for key, value in values.items()
        ]
        return filled + looked(-1)

    inputs = [fields[key] for key in fields]
    shown["start"].click(start, inputs, outputs, queue=False, **_PRIVATE)
    shown["stop"].click(stop, [shown["seen"]], outputs, queue=False, **_PRIVATE)
    shown["unload"].click(unload, None, None, **_PRIVATE)
    shown["timer"].tick(looked, [shown["seen"]], outputs, queue=False, **_PRIVATE)
    blocks = GradioContext.root_block
    assert isinstance(blocks, gr.Blocks), "the page is built inside Blocks"
    blocks.load(opened, None, [fields[key] for key in DEFAULTS] + outputs, **_PRIVATE)
