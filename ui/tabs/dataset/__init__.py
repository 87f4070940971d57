"""The Dataset page: look at pictures as they are trained, mend captions and masks, build a training set."""

from __future__ import annotations

import gradio as gr

from ui.context import Context
from ui.scripted import KIT, scripted_page
from ui.tabs.dataset.building import BuildCalls
from ui.tabs.dataset.captions import CaptionCalls, operations
from ui.tabs.dataset.doctor import DoctorCalls
from ui.tabs.dataset.looking import LookCalls
from ui.tabs.dataset.preparing import PrepareCalls
from ui.tabs.dataset.shelf import Shelf

SCRIPTS = (
    *KIT,
    "dataset-1-frame.js",
    "dataset-2-pictures.js",
    "dataset-3-viewer.js",
    "dataset-4-mask.js",
    "dataset-5-numbers.js",
    "dataset-6-bulk.js",
    "dataset-7-doctor.js",
    "dataset-8-build.js",
)


def build(context: Context) -> gr.HTML:
    """Draw the page. The script in it calls the methods below by name."""
    shelf = Shelf(context)
    look, captions = LookCalls(shelf), CaptionCalls(shelf)
    doctor, builder, prepare = DoctorCalls(shelf), BuildCalls(shelf), PrepareCalls(shelf)
    methods = (
        look.open_page,
        look.open_dataset,
        look.list_pictures,
        look.thumbnails,
        look.show_picture,
        look.open_mask,
        look.save_mask,
        captions.count_tokens,
        captions.save_caption,
        captions.preview_bulk,
        captions.apply_bulk,
        captions.undo,
        captions.redo,
        doctor.examine,
        doctor.examined,
        doctor.preview_fix,
        doctor.apply_fix,
        doctor.undo_fix,
        builder.propose_build,
        builder.write_build,
        builder.use_in_train,
        prepare.prepare_commands,
        prepare.start_prepare,
        prepare.prepare_state,
        prepare.stop_prepare,
    )
    return scripted_page(context, "dataset", SCRIPTS, methods, "data.", operations=operations())
