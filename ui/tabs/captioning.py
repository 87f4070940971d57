"""The Captioning page: captions by a model, and cleaning texts by rules."""

from __future__ import annotations

import gradio as gr

from backend.annotate.models import BUNDLED
from backend.annotate.settings import CaptioningSettings, CleaningSettings
from ui.context import Context
from ui.tabs.annotating import AnnotatePage, Task, draw

TASKS = (
    Task(
        "caption",
        CaptioningSettings,
        "make_captions.py",
        trial="try_captions",
        model="caption_weights",
        model_kind="captioner",
        start={"caption_weights": BUNDLED, "caption_extension": ".txt", "beam_search": True, "num_beams": 3},
    ),
    Task("clean", CleaningSettings, "clean_captions_and_tags.py", ("in_json", "out_json"), rules=True),
)


def build(context: Context) -> gr.HTML:
    """Draw the page."""
    return draw(AnnotatePage(context, "captioning", TASKS))
