"""Building and editing training sets, without torch.

Nothing here moves, replaces or changes a picture that it was given; caption files are changed only
through a :class:`CaptionStore`, which journals every edit and can undo it after a restart.

- :func:`propose`, :func:`write`: a training set out of a folder of pictures
- :class:`CaptionStore`, :data:`OPERATIONS`: captions one by one and in bulk, undo, conflicts, statistics
- :func:`save_mask`, :func:`load_mask`, :func:`masks_folder`, :func:`without_mask`: masks
- :func:`thumbnail`, :func:`thumbnails`, :func:`histograms`, :func:`page`: looking at a plan
- :func:`resize_folder`, :func:`group_images`, :func:`make_dreambooth_folder`: folders out of folders
"""

from backend.data.edit.build import Proposal, propose, write
from backend.data.edit.folder import Concept, make_dreambooth_folder
from backend.data.edit.group import GroupRules, group_images
from backend.data.edit.look import Slice, histograms, page, thumbnail, thumbnails
from backend.data.edit.masks import load_mask, mask_of, masks_folder, save_mask, without_mask
from backend.data.edit.operations import OPERATIONS, Operation
from backend.data.edit.resize import ResizeRules, resize_folder
from backend.data.edit.store import CaptionStore
from backend.data.edit.types import (
    MISSING,
    Applied,
    Caption,
    Change,
    Conflict,
    Filter,
    HistoryItem,
    Page,
    Preview,
    Report,
    TagStatistics,
    Written,
)

__all__ = [
    "MISSING",
    "OPERATIONS",
    "Applied",
    "Caption",
    "CaptionStore",
    "Change",
    "Concept",
    "Conflict",
    "Filter",
    "GroupRules",
    "HistoryItem",
    "Operation",
    "Page",
    "Preview",
    "Proposal",
    "Report",
    "ResizeRules",
    "Slice",
    "TagStatistics",
    "Written",
    "group_images",
    "histograms",
    "load_mask",
    "make_dreambooth_folder",
    "mask_of",
    "masks_folder",
    "page",
    "propose",
    "resize_folder",
    "save_mask",
    "thumbnail",
    "thumbnails",
    "without_mask",
    "write",
]
