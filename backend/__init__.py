"""Everything Atelier does that is not the page: settings, data, models, training, generation, jobs."""

__version__ = "0.1.0"
