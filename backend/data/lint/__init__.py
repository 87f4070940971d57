"""The dataset doctor: finds trouble before training does, and offers cures that can be taken back.

No torch: the page and a command line use it alike.
"""

from backend.data.lint.doctor import lint
from backend.data.lint.fixes import Change, Fix
from backend.data.lint.journal import Undo, pending
from backend.data.lint.rules import RULES
from backend.data.lint.survey import roots_of
from backend.data.lint.types import Example, Finding, Findings, Severity

__all__ = [
    "RULES",
    "Change",
    "Example",
    "Finding",
    "Findings",
    "Fix",
    "Severity",
    "Undo",
    "lint",
    "pending",
    "roots_of",
]
