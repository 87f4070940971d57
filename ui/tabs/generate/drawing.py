"""Asking for pictures: the form, what is being drawn, and taking settings out of a finished picture."""

from __future__ import annotations

import base64
import binascii
import io
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.errors import InputError, Problem
from backend.generate.parameters import Parameters, read_parameters
from backend.generate.protocol import ENCODERS, request_of
from ui.context import Context
from ui.i18n import said, said_problem, t
from ui.studio import Job, Order, Shot, Studio, View
from ui.tabs.generate import files
from ui.tabs.generate.fields import (
    DEFAULTS,
    FIELDS,
    known,
    named_pictures,
    read,
    request_data,
)
from ui.tabs.generate.files import FORM
from ui.tabs.generate.inputs import Inputs, file_url

DRAFT = "draw"
"""Name of the form's draft; recent files stay under the name of old."""
_RANDOM = 2**32


class Desk:
    """What the parts of the page share: the worker, the given pictures, the last values."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.studio = Studio(context)
        context.helpers.setdefault("generate", self.studio.release)  # of those drawn the first one works
        self.inputs = Inputs(context)

    @property
    def outputs(self) -> Path:
        """Where pictures go."""
        return self.context.home / "outputs"

    def values(self) -> dict[str, Any]:
        """What the form shows when it is opened: the last values, else sensible ones."""
        values = known(self.context.drafts.load(DRAFT) or {})
        values["model"] = values["model"] or next(iter(files.models(self.context)), "")
        return values

    def keep(self, values: Mapping[str, Any]) -> None:
        """Remember the form as it is, whatever stands in it."""
        self.context.drafts.save(DRAFT, {key: value for key, value in values.items() if key in DEFAULTS})

    def ready(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The form's values, and the request they make, with its seed decided.

        Raises:
            InputError: everything that is wrong with them.
        """
        found = read(values)
        request = request_data(found, self.inputs.paths(named_pictures(found)))
        for key in ("seed", "variation_seed"):
            if request[key] is None and (key == "seed" or request["variation_strength"]):
                request[key] = secrets.randbelow(_RANDOM)
        request_of(request)
        return found, request

    def remember(self, values: Mapping[str, Any]) -> None:
        """Offer the files of a form again."""
        self.context.drafts.remember(FORM, {"model": values["model"]})
        for row in reversed(values["loras"]):
            self.context.drafts.remember(FORM, {"lora": row["path"]})


class DrawCalls:
    """What the server does for the form. Every method takes and gives JSON."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def open_page(self, data: dict[str, Any]) -> dict[str, Any]:
        """The form with its last values, and files to choose from."""
        values = self.desk.values()
        given = {name: facts for name in _pictures_of(values) if (facts := self.desk.inputs.facts(name))}
        return {
            "fields": [_described(asdict(field)) for field in FIELDS],
            "values": values,
            "given": given,
            **self.list_files(data),
        }

    def list_files(self, data: dict[str, Any]) -> dict[str, Any]:
        """Base models and networks to choose from."""
        networks = [{"label": label, "path": path} for label, path in files.loras(self.desk.context)]
        return {"models": files.models(self.desk.context), "loras": networks}

    def keep_form(self, data: dict[str, Any]) -> dict[str, Any]:
        """Remember what stands in the form."""
        self.desk.keep(data.get("values") or {})
        return {}

    def draw(self, data: dict[str, Any]) -> dict[str, Any]:
        """Draw with the form's values, after what is being drawn already."""
        values = data.get("values") or {}
        found, request = self.desk.ready(values)
        self.desk.keep(values)
        self.desk.remember(found)
        self.desk.studio.add(_job(found, request, self.desk.outputs / time.strftime("%Y-%m-%d")))
        return self.look(data)

    def look(self, data: dict[str, Any]) -> dict[str, Any]:
        """What is being drawn; pictures and previews that the page has not seen yet."""
        studio = self.desk.studio
        if data.get("measure"):
            studio.measure()
        view = studio.view()
        rows = {"waiting": studio.waiting(), "left": studio.left()}
        queue = {name: [_row(job) for job in jobs] for name, jobs in rows.items()}
        return {"now": _shown(view, data), **queue, "training": studio.training() or ""}

    def stop(self, data: dict[str, Any]) -> dict[str, Any]:
        """End what is being drawn."""
        self.desk.studio.stop()
        return self.look(data)

    def cancel(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take something out of the queue, or out of what was left when the server ended."""
        self.desk.studio.cancel(str(data.get("waiting")))
        return self.look(data)

    def go_on(self, data: dict[str, Any]) -> dict[str, Any]:
        """Draw what was not finished when the server ended."""
        self.desk.studio.go_on()
        return self.look(data)

    def release(self, data: dict[str, Any]) -> dict[str, Any]:
        """Let the model go."""
        studio = self.desk.studio
        key = "busy" if studio.view().busy else "unloaded" if studio.release() else "nothing_loaded"
        return {"message": t(f"gen.{key}"), **self.look(data)}

    def give_picture(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep a picture that the page was given."""
        name = self.desk.inputs.take(str(data.get("picture") or ""))
        return {"given": self.desk.inputs.facts(name)}

    def read_settings(self, data: dict[str, Any]) -> dict[str, Any]:
        """The settings inside a PNG that was dropped on the page (its beginning is enough)."""
        text = _text_inside(str(data.get("picture") or ""))
        if not text:
            raise InputError(t("gen.no_settings"), next=t("gen.no_settings_next"))
        return restored(self.desk.context, text)


def restored(context: Context, text: str) -> dict[str, Any]:
    """The form's values as a picture's text has them, and what of it could not be taken."""
    found = read_parameters(text)
    request, notes = found.request, [*found.request.notes]
    values: dict[str, Any] = {
        key: value
        for key in ("prompt", "negative", "steps", "scale", "sampler", "width", "height", "seed")
        if (value := getattr(request, key)) is not None
    }
    values |= {"count": 1, "batch": 1, "compare": False, "clip_skip": request.clip_skip or 1}
    values |= {"max_token_length": request.max_token_length, "negative_scale": request.negative_scale}
    values |= {"variation_seed": request.variation_seed, "variation_strength": request.variation_strength}
    values |= {"vae_tile": request.vae_tile, "image": "", "mask": "", "guides": []}
    values["hires"] = request.hires is not None
    if request.hires:
        names = ("scale", "mode", "strength", "steps")
        values |= {f"hires_{name}": getattr(request.hires, name) for name in names}
    values["loras"], missing = _stack(context, found)
    vae = files.find(context, Path(found.vae).stem, base=True) if found.vae else ""
    values["vae"] = vae
    notes += [t("gen.not_found_vae", name=found.vae)] if found.vae and not vae else []
    notes += [t("gen.not_found_lora", name=name) for name in missing]
    if found.model:
        model = files.find(context, found.model, base=True)
        values |= {"model": model} if model else {}
        notes += [] if model else [t("gen.not_found_model", name=found.model)]
    notes += [t("gen.not_restored", names=", ".join(found.others))] if found.others else []
    return {"values": values, "notes": [said(note) for note in notes]}


def _stack(context: Context, found: Parameters) -> tuple[list[dict[str, Any]], list[str]]:
    """The networks of a picture's text as rows of the form, and the names of those that are not here."""
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for lora in found.loras:
        path = files.find(context, lora.path, base=False)
        if path:
            rows.append({"path": path, "strength": lora.strength, "text_strength": lora.text_strength})
        else:
            missing.append(lora.path)
    return rows, missing


def _job(values: Mapping[str, Any], request: dict[str, Any], out: Path) -> Job:
    """One pass, or one without and one with the networks."""
    own = {key: values[key] for key in ENCODERS if values[key]}
    shared = {
        "op": "generate",
        "model": values["model"],
        **own,
        "out": str(out),
        "preview": values["preview"],
    }
    plain = Order({**shared, "request": {**request, "loras": []}}, t("gen.without"))
    names = ", ".join(
        f"{Path(row['path']).stem} \u00d7 {row.get('strength', 1):g}" for row in values["loras"]
    )
    whole = Order({**shared, "request": request}, names)
    orders = (plain, whole) if values["compare"] else (whole,)
    title = request["prompt"].strip().splitlines()[0][:80] if request["prompt"].strip() else t("gen.no_words")
    return Job(orders, title, request["count"] * len(orders), seed=request["seed"])


def _row(job: Job) -> dict[str, Any]:
    return {"id": job.id, "title": job.title, "total": job.total - job.done}


def _described(field: dict[str, Any]) -> dict[str, Any]:
    """A field for the script; the modes of a second pass have their labels among the texts."""
    if field["name"] == "hires_mode":
        field["choices"] = [(value, t(f"gen.hires_{value}")) for value, _ in field["choices"]]
    return field


def _pictures_of(values: Mapping[str, Any]) -> list[str]:
    rows = [row for row in values["guides"] if isinstance(row, dict)]
    names = [values["image"], values["mask"], *(row.get("image") for row in rows)]
    return [str(name) for name in names if name]


def _shown(view: View, seen: Mapping[str, Any]) -> dict[str, Any]:
    """A view as JSON, without the pictures and the preview that the page has."""
    same = seen.get("job") == view.job
    first = int(seen.get("shots") or 0) if same else 0
    fresh = view.preview and (not same or seen.get("preview") != view.previews)
    return {
        **{key: getattr(view, key) for key in ("state", "job", "kind", "title", "grid", "detail", "step")},
        **{key: getattr(view, key) for key in ("steps", "done", "total", "columns", "previews")},
        **{key: getattr(view, key) for key in ("stopped", "seed", "memory")},
        "notes": [said(note) for note in view.notes],
        "problems": [said_problem(problem) for problem in view.problems],
        "seconds": round(view.seconds, 1),
        "busy": view.busy,
        "preview": view.preview if fresh else ("" if not view.preview else None),
        "first": first,
        "shots": [shot_json(shot) for shot in view.shots[first:]],
    }


def shot_json(shot: Shot) -> dict[str, Any]:
    """A finished picture for the page."""
    return {
        "url": file_url(shot.path),
        "path": str(shot.path),
        "name": shot.path.name,
        "seed": shot.seed,
        "caption": shot.caption,
        "text": shot.text,
        "place": list(shot.place),
    }


def _text_inside(address: str) -> str:
    """The ``parameters`` of a PNG whose beginning is given as a ``data:`` address."""
    from PIL import Image

    try:
        data = base64.b64decode(address.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(data)) as image:
            return str(image.info.get("parameters", ""))
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(Problem(t("gen.no_picture_file"))) from None
