"""Captioners behind one small protocol, all through transformers.

- :func:`open_captioner`: the captioner in a folder, told by its ``config.json``
- :class:`Captioner`: what a captioner does; :class:`Writing`: how it is to write
"""

from backend.annotate.captioners.base import Captioner, Writing
from backend.annotate.captioners.kinds import open_captioner

__all__ = ["Captioner", "Writing", "open_captioner"]
