"""The Tagging page: tags by a tagger, with thresholds that are tried live, and metadata files."""

from __future__ import annotations

from typing import Any

import gradio as gr

from backend.annotate import models, options, tagrules
from backend.annotate.runs import complete
from backend.annotate.settings import MergingSettings, TaggingSettings, thresholds
from ui.context import Context
from ui.tabs.annotating import AnnotatePage, Task, draw


def tasks() -> tuple[Task, ...]:
    """What the page does."""
    start = {
        "repo_id": models.BUNDLED,
        "model_dir": str(models.taggers_folder()),
        "remove_underscore": True,
    }
    return (
        Task(
            "tag",
            TaggingSettings,
            "tag_images_by_wd14_tagger.py",
            trial="try_tags",
            model="repo_id",
            start=start,
            hidden=("onnx", "append_tags"),
        ),
        Task("merge", MergingSettings, "merge_captions_to_metadata.py", ("train_data_dir", "out_json")),
    )


class TaggingPage(AnnotatePage):
    """What the server does for the Tagging page."""

    def compose(self, data: dict[str, Any]) -> dict[str, Any]:
        """The texts that scores of a trial give with the form as it is now, and the thresholds in force."""
        values = self._values(self.tasks["tag"], data)
        settings = options.read(TaggingSettings, values)
        rules = tagrules.rules_of(settings)
        found: list[str] = []
        for picture in data.get("pictures") or []:
            place = {tag: number for number, tag in enumerate(picture.get("order") or [])}
            rows = ((str(tag), str(category), float(score)) for tag, category, score in picture["scores"])
            scores = sorted(rows, key=lambda score: place.get(score[0], 0))
            found.append(complete(tagrules.text_of(scores, rules), settings, rules.separator))
        return {"texts": found, "limits": thresholds(settings)}


def build(context: Context) -> gr.HTML:
    """Draw the page."""
    page = TaggingPage(context, "tagging", tasks())
    return draw(page, (page.compose,))
