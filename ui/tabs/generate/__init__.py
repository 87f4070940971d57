"""The Generate page: draw with a model, look back at what was made, compare in grids."""

from __future__ import annotations

import gradio as gr

from ui.context import Context
from ui.docs.library import title
from ui.scripted import KIT, scripted_page
from ui.tabs.generate.drawing import Desk, DrawCalls
from ui.tabs.generate.files import trained_files
from ui.tabs.generate.grids import GridCalls, VoteCalls
from ui.tabs.generate.made import GalleryCalls

__all__ = ["build", "trained_files"]

SCRIPTS = (
    *KIT,
    "generate-1-frame.js",
    "generate-2-form.js",
    "generate-3-rows.js",
    "generate-4-mask.js",
    "generate-5-draw.js",
    "generate-6-viewer.js",
    "generate-7-gallery.js",
    "generate-8-grid.js",
    "generate-9-vote.js",
)


def build(context: Context) -> gr.HTML:
    """Draw the page. The script in it calls the methods below by name."""
    desk = Desk(context)
    draw, made, grid = DrawCalls(desk), GalleryCalls(desk), GridCalls(desk)
    vote = VoteCalls(grid)
    methods = (
        draw.open_page,
        draw.list_files,
        draw.keep_form,
        draw.draw,
        draw.look,
        draw.stop,
        draw.cancel,
        draw.go_on,
        draw.release,
        draw.give_picture,
        draw.read_settings,
        made.list_made,
        made.small_ones,
        made.use_settings,
        made.use_picture,
        made.dataset_folders,
        made.to_dataset,
        grid.list_grids,
        grid.plan_run,
        grid.count_cells,
        grid.start_grid,
        grid.continue_grid,
        grid.show_grid,
        vote.next_pair,
        vote.vote,
    )
    return scripted_page(context, "generate", SCRIPTS, methods, "gen.", read=("generate", title("generate")))
