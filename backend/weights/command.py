"""What the command lines over model files share: progress, reports, and the merge itself."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from backend.errors import EnvironmentFault, InputError
from backend.system.identify import FAMILY_FACTS, FamilyName, identify
from backend.weights.precision import PRECISIONS
from backend.weights.report import Report
from backend.weights.safefile import write_text_atomic
from backend.weights.streaming import Progress

_EVERY = 5.0
"""Seconds between lines of progress where a line cannot be overwritten."""


class ProgressLine:
    """Progress of a job: one line that is overwritten, or a line now and then in a file."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._doing = ""
        self._last = time.monotonic()

    def __call__(self, doing: str, done: int, total: int) -> None:
        now = time.monotonic()
        ended = done >= total
        if not ended and now - self._last < (0.1 if self._live else _EVERY):
            return
        self._last = now
        text = f"{doing}: {done}/{total}"
        self._stream.write(f"\r{text:<60}" if self._live else f"{text}\n")
        if self._live and ended:
            self._stream.write("\n")
        self._stream.flush()


class _Parser(argparse.ArgumentParser):
    """With ``--allow_fallback``, a device that is not here becomes the processor."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        options = super().parse_args(args, namespace)
        if options.allow_fallback and getattr(options, "device", None):
            options.device = _device_here(options.device)
        return options


def _device_here(name: str) -> str | None:
    """The device; None, which is the processor, with a line that says so where this machine lacks it."""
    from backend.weights.precision import device_named

    try:
        device_named(name)
    except EnvironmentFault as fault:
        print(f"note: {fault.problems[0].what}: the processor is used instead", file=sys.stderr)
        return None
    return name


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every job has."""
    found = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    found.add_argument("--report", type=Path, help="write the report to this file as JSON, too")
    found.add_argument(
        "--allow_fallback", action="store_true", help="use the processor where --device is not to be had"
    )
    return found


def add_precisions(
    found: argparse.ArgumentParser, *, merging: bool, unset: str = "of the output [float]"
) -> None:
    """``--save_precision``, and ``--precision`` where sums are made."""
    found.add_argument(
        "--save_precision",
        choices=PRECISIONS,
        help="of the output [that of --precision]" if merging else unset,
    )
    if merging:
        found.add_argument(
            "--precision", choices=PRECISIONS, default="float", help="sums are kept in it [%(default)s]"
        )


def finish(job: Callable[[Progress], Report], options: argparse.Namespace, verbose: bool = False) -> int:
    """Run a job, print its report, and write it as JSON when asked to."""
    import torch

    torch.set_num_threads(1)  # pieces are worked on side by side instead
    if options.report is not None and options.report.is_dir():
        raise InputError(f"{options.report} is a folder; a file name is needed", key="report")
    report = job(ProgressLine())
    print(report.text(verbose))
    if options.report is not None:
        write_text_atomic(options.report, json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n")
    return 0


def check_family(path: Path, wanted: Sequence[str], option: str) -> None:
    """Raises:
    InputError: an option names another family than the file's own.
    """
    found = identify(path)
    if found.family not in (*wanted, "unknown"):
        lines = ", ".join(FAMILY_FACTS[_name(name)].line for name in wanted)
        raise InputError(
            f"{option} is for {lines}; {path.name} is {found.title}",
            where=str(path),
            next="choose another file, or leave the option out: the file says what it is",
        )


def _name(family: str) -> FamilyName:
    return cast("FamilyName", family)


def merge_parser(description: str | None, lbws: bool) -> argparse.ArgumentParser:
    """The options of ``merge_lora.py`` and its sisters."""
    found = parser(description)
    add_precisions(found, merging=True)
    found.add_argument("--sd_model", type=Path, help="merge into this checkpoint; without it, into one LoRA")
    found.add_argument("--save_to", type=Path, help="the file to write: .safetensors, .ckpt or .pt")
    found.add_argument("--models", type=Path, nargs="*", default=[], help="LoRA files")
    found.add_argument("--ratios", type=float, nargs="*", default=[], help="how much of each; 0.5 is half")
    found.add_argument("--no_metadata", action="store_true", help="write only what other programs need")
    found.add_argument(
        "--concat",
        action="store_true",
        help="put ranks side by side; this is what happens without it, too, as no other way is exact",
    )
    found.add_argument("--shuffle", action="store_true", help="mix the order of the ranks (with --concat)")
    found.add_argument("--new_rank", type=int, help="LoRA into LoRA: approximate the sum with this rank")
    found.add_argument("--new_conv_rank", type=int, help="for kernels larger than 1x1 [--new_rank]")
    found.add_argument("--device", help="where --new_rank calculates [cpu]")
    if lbws:
        found.add_argument("--lbws", nargs="*", default=[], help='block weights: "[1,0,...]" for each model')
    return found


def merge(options: argparse.Namespace, families: Sequence[str], script: str) -> int:
    """Run ``merge_lora.py`` or a sister for files of ``families``."""
    for path in filter(None, [options.sd_model, *options.models]):
        check_family(path, families, script)
    if options.sd_model is None:
        return finish(_networks(options), options)
    for name in ("concat", "shuffle", "new_rank", "new_conv_rank"):
        if getattr(options, name):
            raise InputError(f"--{name} is for merging LoRAs into one", next="leave --sd_model or it out")
    return finish(_into(options), options)


def _into(options: argparse.Namespace) -> Callable[[Progress], Report]:
    from backend.weights import merge_into

    job = merge_into.MergeInto(
        sd_model=options.sd_model,
        models=options.models,
        ratios=options.ratios,
        save_to=options.save_to,
        lbws=getattr(options, "lbws", ()),
        precision=options.precision,
        save_precision=options.save_precision,
        no_metadata=options.no_metadata,
        overwrite=options.overwrite,
    )
    return lambda progress: merge_into.run(job, progress)


def _networks(options: argparse.Namespace) -> Callable[[Progress], Report]:
    from backend.weights import merge_networks

    job = merge_networks.MergeNetworks(
        models=options.models,
        ratios=options.ratios,
        save_to=options.save_to,
        lbws=getattr(options, "lbws", ()),
        new_rank=options.new_rank,
        new_conv_rank=options.new_conv_rank,
        shuffle=getattr(options, "shuffle", False),
        exact=getattr(options, "exact", False),
        precision=options.precision,
        save_precision=options.save_precision,
        device=options.device,
        no_metadata=options.no_metadata,
        overwrite=options.overwrite,
    )
    return lambda progress: merge_networks.run(job, progress)


def svd_merge(options: argparse.Namespace) -> int:
    """Run ``svd_merge_lora.py``."""
    return finish(_networks(options), options)
