"""Grids from the command line: the same folders, plans and cells as on the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from backend.errors import InputError, RunFault
from backend.generate import grid as grids
from backend.generate.grid import AXES, Axis, GridFolder
from backend.generate.grid_values import axis_of
from backend.generate.protocol import ENCODERS
from backend.generate.request import LoraUse, Request

_LINES = ("file", "prompt")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options, named as those of ``gen_img.py`` where it has them."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = found.add_argument
    add("--resume", type=Path, metavar="FOLDER", help="draw what this grid lacks; nothing else is needed")
    add("--axis", nargs="+", action="append", default=[], metavar=("KEY", "VALUES"), help=_axis_help())
    add("--outdir", type=Path, default=Path("outputs/grids"), help="where its folder is made [%(default)s]")
    add("--name", default="", help="part of its folder's name")
    add("--ckpt", type=Path, help="the base model")
    add("--vae", default="", help="a VAE in place of the model's own")
    for name in ENCODERS:
        add(f"--{name}", default="", help="a text encoder's own file (SD 3)")
    add("--prompt", default="", help="what to draw")
    add("--negative", default="", help="what not to draw")
    add("--W", type=int, help="width in pixels [the family's own]")
    add("--H", type=int, help="height in pixels")
    add("--steps", type=int, default=Request.steps, help="[%(default)s]")
    add("--scale", type=float, default=Request.scale, help="of classifier-free guidance [%(default)s]")
    add("--sampler", default=Request.sampler, help="[%(default)s]")
    add("--seed", type=int, help="[drawn at random]")
    add("--clip_skip", type=int, help="1 is the last layer")
    add("--network_weights", nargs="+", default=[], help="LoRA files that every cell has")
    add("--network_mul", nargs="+", type=float, default=[], help="their strengths [1]")
    return found


def _axis_help() -> str:
    return (
        f"what varies ({', '.join(AXES)}) and its values; once for columns, again for rows, again for "
        "blocks. Numbers also as 1-5, '0.4-1 (+0.2)' or '0-1 [5]'"
    )


def folder_of(options: argparse.Namespace) -> GridFolder:
    """The grid to draw: the one to go on with, or a new one.

    Raises:
        InputError: it cannot be planned, or there is none to go on with.
    """
    if options.resume:
        return grids.opened(options.resume)
    if options.ckpt is None:
        raise InputError("no base model was given", next="Give --ckpt, or --resume.", key="ckpt")
    strengths = [*options.network_mul, *[1.0] * len(options.network_weights)]
    pairs = zip(options.network_weights, strengths, strict=False)
    request = Request(
        prompt=options.prompt,
        negative=options.negative,
        width=options.W,
        height=options.H,
        seed=options.seed,
        steps=options.steps,
        scale=options.scale,
        sampler=options.sampler,
        clip_skip=options.clip_skip,
        vae=options.vae,
        loras=tuple(LoraUse(path, strength) for path, strength in pairs),
    )
    encoders = {name: value for name in ENCODERS if (value := getattr(options, name))}
    axes = [_axis(written) for written in options.axis]
    made = grids.planned(str(options.ckpt), request, axes, options.name, encoders)
    return grids.create(options.outdir, made)


def _axis(written: Sequence[str]) -> Axis:
    key, *values = written
    return axis_of(key, ("\n" if key in _LINES else ",").join(values))


def draw(folder: GridFolder) -> int:
    """Draw what a grid lacks, a line a cell. Returns the exit code.

    Raises:
        RunFault: cells could not be drawn.
    """
    from backend.generate import engine
    from backend.generate.grid_draw import Cell, draw_missing
    from backend.generate.warm import Warm
    from backend.generate.worker import parameters_of

    warm, total = Warm(), len(folder.grid.places)
    done = len(folder.finished())
    print(f"{folder.path}: {done} of {total} cells are drawn", flush=True)

    def one(model: Path, encoders: Mapping[str, Path], request: Request) -> engine.Drawn:
        loaded, attachments = warm.use(model, _say, encoders)
        return next(iter(engine.draw(loaded, [request], attachments=attachments)))

    def told(cell: Cell) -> None:
        nonlocal done
        done += cell.path is not None
        print(f"{done}/{total} {cell.label}" + ("" if cell.path else ": not drawn"), flush=True)
        for problem in cell.problems:
            print(problem.text(), file=sys.stderr)

    failed = draw_missing(folder, one, parameters_of, told)
    print(folder.path / grids.SHEET)
    if failed:
        raise RunFault(
            f"{len(failed)} of {total} cells could not be drawn",
            next=f"Mend what is said above, then go on with --resume {folder.path}",
        )
    return 0


def _say(**facts: str) -> None:
    print(facts.get("note") or f"loading {facts.get('path', '')}", file=sys.stderr)
