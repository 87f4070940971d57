"""Optimizers by the names people know, any class of torch.optim, and any ``module.Class``."""

from backend.train.optimizers.make import (
    describe,
    load_class,
    make,
    parse_arguments,
    replacement,
    sets_own_rate,
    settled,
)
from backend.train.optimizers.modes import averaged, averages, inner, load_memory, rates

__all__ = [
    "averaged",
    "averages",
    "describe",
    "inner",
    "load_class",
    "load_memory",
    "make",
    "parse_arguments",
    "rates",
    "replacement",
    "sets_own_rate",
    "settled",
]
