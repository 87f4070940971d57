"""What ``gen_img.py`` does: from its options to pictures in a folder."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from backend import families, networks
from backend.errors import EnvironmentFault, InputError
from backend.families.base import DiffusionModel
from backend.generate import engine, gen_lines, gen_options, parameters, pictures, samplers, words
from backend.generate.attachments import Attachments
from backend.generate.gen_lines import GenPrompt
from backend.generate.request import DEFAULT_STRENGTH, Guide, Hires, LoraUse, Request, StatedSizes
from backend.settings.paths import write_problem

_TILE = 512
_FIRST_MULTIPLE = 32
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FAMILIES = {"v1": "sd1", "v2": "sd2", "sdxl": "sdxl"}


@dataclass(frozen=True)
class Picture:
    """One picture that is to be drawn, and what its file is named by."""

    request: Request
    raw: str
    number: int
    name: str = ""
    """The name it was given; '' for one made of time, number and seed."""


def run(options: argparse.Namespace) -> int:
    """Draw what the options ask for. Returns the exit code.

    Raises:
        InputError: options that are refused or do not fit each other, and files that cannot be used.
    """
    notes = gen_options.check(options)
    _check(options)
    if problem := write_problem(Path(options.outdir), "outdir"):
        raise InputError(problem)
    for note in notes:
        print(f"note: {note}")
    options.W, options.H = options.W or None, options.H or None
    model = _loaded(options)
    with ExitStack() as stack:
        files = [Path(path) for path in options.textual_inversion_embeddings or ()]
        stack.enter_context(words.knowing(model, {path.stem: path for path in files}))
        job = _Job(options, model)
        stack.callback(job.attachments.clear)
        if options.interactive:
            job.talk()
        else:
            job.draw(job.prompts())
    return 0


def _check(options: argparse.Namespace) -> None:
    if not options.ckpt:
        raise InputError("no base model was named", next="Give it with --ckpt.", key="ckpt")
    if samplers.canonical(options.sampler) is None:
        raise InputError(
            f"there is no sampler '{options.sampler}'",
            next=f"Choose one of: {', '.join(samplers.SAMPLERS)}.",
            key="sampler",
        )
    if not (options.prompt is not None or options.from_file or options.interactive):
        raise InputError("there is nothing to draw", next="Give --prompt, --from_file or --interactive.")
    modules, weights = options.network_module or [], options.network_weights or []
    if modules and len(modules) != len(weights):
        raise InputError(
            f"{len(modules)} of --network_module, but {len(weights)} of --network_weights",
            next="Name a file for each.",
            key="network_weights",
        )
    if options.mask_path and not options.image_path:
        raise InputError("--mask_path needs --image_path", key="mask_path")
    if options.control_net_lllite_models and not options.guide_image_path:
        raise InputError("ControlNet-LLLite needs a picture to follow", next="Give --guide_image_path.")


def _loaded(options: argparse.Namespace) -> DiffusionModel:
    """The base model, where and in the type it is to compute in."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32
    if options.fp16 and device.type == "cpu":
        print("note: float16 is for graphics cards; float32 is used on this processor")
    elif options.fp16 or options.bf16:
        dtype = torch.float16 if options.fp16 else torch.bfloat16
    v_prediction = bool(getattr(options, "v_parameterization", False)) or None
    vae = Path(options.vae) if options.vae else None
    model = families.load(options.ckpt, dtype=dtype, device=device, vae=vae, v_prediction=v_prediction)
    _check_family(options, model)
    for note in model.notes:
        print(f"note: {note}")
    if options.no_half_vae:
        model.vae.float()
    if options.opt_channels_last:
        cast("Any", model.denoiser).to(memory_format=torch.channels_last)
    if (options.xformers or options.diffusers_xformers) and not model.set_attention("xformers"):
        raise EnvironmentFault("this kind of model does not use xformers", next="Leave --xformers out.")
    return model


def _check_family(options: argparse.Namespace, model: DiffusionModel) -> None:
    for name, family in _FAMILIES.items():
        if getattr(options, name, False) and model.family != family:
            title, found = families.FAMILIES[family].title, families.FAMILIES[model.family].title
            raise InputError(
                f"--{name} is for {title}; the model is {found}",
                where=options.ckpt,
                next="Leave it out: the file says what it is.",
                key=name,
            )


class _Job:
    """A loaded model and all that the options say beside the prompts."""

    def __init__(self, options: argparse.Namespace, model: DiffusionModel) -> None:
        self.options = options
        self.model = model
        self.out = Path(options.outdir)
        self.began = time.strftime("%Y%m%d%H%M%S")
        self.attachments = Attachments(model, _say)
        self.random = random.Random(options.seed)
        self.given = _files(options.image_path, "image_path")
        self.masks = _files(options.mask_path, "mask_path")
        self.guides = [
            path for each in options.guide_image_path or () for path in _files(each, "guide_image_path")
        ]
        self.networks = self._merged([Path(path) for path in options.network_weights or ()])
        self.drawn = 0

    def prompts(self) -> list[GenPrompt]:
        """Those of the file, or the one of the command line."""
        defaults = _defaults(self.options, self.model)
        if self.options.from_file:
            return gen_lines.read_file(Path(self.options.from_file), defaults)
        return [gen_lines.parse(self.options.prompt, defaults)]

    def talk(self) -> None:
        """Draw what is typed, line by line, until an empty line or the end of input."""
        defaults = _defaults(self.options, self.model)
        while True:
            print("prompt (empty: end): ", end="", flush=True)
            line = sys.stdin.readline().strip()
            if not line:
                return
            self.draw([gen_lines.parse(line, defaults)])

    def draw(self, prompts: Sequence[GenPrompt]) -> None:
        """Draw and save all pictures of all rounds."""
        wanted = [ready for each in self._planned(list(prompts)) for ready in self._resolved(each)]
        for note in dict.fromkeys(note for each in wanted for note in each.request.notes):
            print(f"note: {note}")
        began = time.perf_counter()
        drawn = engine.draw(
            self.model,
            [each.request for each in wanted],
            attachments=self.attachments,
            on_step=_steps(sys.stderr),
        )
        for picture, result in zip(wanted, drawn, strict=True):
            path = self._save(picture, result)
            print(f"{path}  ({time.perf_counter() - began:.1f} s)")
            if result.fault:
                print(f"warning: {result.fault}")
            began = time.perf_counter()

    def _resolved(self, picture: Picture) -> Iterator[Picture]:
        for request in engine.resolve(self.model, picture.request):
            yield replace(picture, request=request)

    def _planned(self, prompts: list[GenPrompt]) -> Iterator[Picture]:
        """Every picture with its seed, files and strengths."""
        options = self.options
        if len(prompts) == 1 and len(self.given) > 1:
            prompts = prompts * len(self.given)
        single = len(prompts) * options.n_iter * options.images_per_prompt == 1
        for _ in range(options.n_iter):
            same = self._next_seed() if options.iter_same_seed else None
            order = list(prompts)
            if getattr(options, "shuffle_prompts", False):
                self.random.shuffle(order)
            for index, prompt in enumerate(order):
                for number in range(options.images_per_prompt):
                    own = prompt.seeds[number] if number < len(prompt.seeds) else None
                    seed = own if own is not None else same
                    if seed is None:
                        seed = options.seed if single and options.seed is not None else self._next_seed()
                    yield self._picture(prompt, index, seed)

    def _next_seed(self) -> int:
        return self.random.randint(0, 2**32 - 1)

    def _picture(self, prompt: GenPrompt, index: int, seed: int) -> Picture:
        request = replace(prompt.request, seed=seed, loras=self._strengths(prompt), guides=self._guides())
        name = prompt.name
        if self.given:
            image = self.given[index % len(self.given)]
            mask = str(self.masks[index % len(self.masks)]) if self.masks else ""
            request = replace(request, image=str(image), mask=mask)
            name = name or (image.stem if self.options.use_original_file_name else "")
        request = _two_passes(request, self.options, self.model)
        self.drawn += 1
        return Picture(request, prompt.raw, self.drawn, name)

    def _strengths(self, prompt: GenPrompt) -> tuple[LoraUse, ...]:
        """The networks that act live, by the line's multipliers where it has some."""
        if not prompt.multipliers:
            return self.networks
        last = len(prompt.multipliers) - 1
        return tuple(
            replace(each, strength=prompt.multipliers[min(index, last)])
            for index, each in enumerate(self.networks)
        )

    def _guides(self) -> tuple[Guide, ...]:
        options = self.options
        files = options.control_net_lllite_models or []
        if files and len(self.guides) not in (1, len(files)):
            raise InputError(
                f"{len(files)} ControlNets and {len(self.guides)} guide pictures",
                next="Name one picture for each, or one for all.",
                key="guide_image_path",
            )
        return tuple(
            Guide(
                path,
                str(self.guides[index % len(self.guides)]),
                _at(options.control_net_multipliers, index),
                _at(options.control_net_ratios, index),
            )
            for index, path in enumerate(files)
        )

    def _merged(self, files: list[Path]) -> tuple[LoraUse, ...]:
        """Put the networks that are to be merged into the weights; those that act live."""
        options = self.options
        uses = [LoraUse(str(path), _at(options.network_mul, index)) for index, path in enumerate(files)]
        if options.network_show_meta:
            for path in files:
                for key, value in sorted(networks.read_lora(path)[1].items()):
                    print(f"{path.name}: {key}: {value}")
        count = len(uses) if options.network_merge else options.network_merge_n_models or 0
        modules = [*self.model.adapter_modules(), *self.model.further_modules()]
        for use in uses[:count]:
            network = networks.from_weights(networks.read_lora(Path(use.path))[0], modules)
            network.merge(use.strength)
            print(f"merged {Path(use.path).name} at {use.strength:g}")
        return tuple(uses[count:])

    def _save(self, picture: Picture, result: engine.Drawn) -> Path:
        request, options = result.request, self.options
        two = "" if request.hires is None else "1"
        if result.first is not None:
            self._write(result.first, self._named(picture, request, "0"), picture, request)
        name = picture.name or self._named(picture, request, two)
        path = self._write(result.image, name, picture, request)
        return path if options.outdir else path.resolve()

    def _named(self, picture: Picture, request: Request, two: str) -> str:
        if self.options.sequential_file_name:
            return f"im_{two}{picture.number:06d}"
        return f"im_{self.began}_{two}{picture.number - 1:03d}_{request.seed}"

    def _write(self, image: object, name: str, picture: Picture, request: Request) -> Path:
        from PIL import Image

        assert isinstance(image, Image.Image)
        stem = pictures.safe_name(name.removesuffix(".png"))
        text = parameters.parameters_text(request, Path(self.options.ckpt).stem)
        return pictures.save(image, self.out / f"{stem}.png", text, _png_text(request, picture.raw))


def _defaults(options: argparse.Namespace, model: DiffusionModel) -> Request:
    """What a line of prompts has that says nothing else."""
    stated = StatedSizes(
        options.original_width, options.original_height, options.original_width_negative,
        options.original_height_negative, options.crop_top or 0, options.crop_left or 0,
    )  # fmt: skip
    return Request(
        width=options.W,
        height=options.H,
        steps=options.steps,
        scale=options.scale,
        sampler=options.sampler,
        batch=max(options.batch_size, 1),
        clip_skip=options.clip_skip,
        max_token_length=75 * max(options.max_embeddings_multiples or 1, 1),
        emb_normalize_mode=getattr(options, "emb_normalize_mode", "original"),
        negative_scale=options.negative_scale,
        strength=DEFAULT_STRENGTH if options.strength is None else options.strength,
        zero_terminal_snr=bool(getattr(options, "zero_terminal_snr", False)) and model.prediction != "flow",
        vae_tile=_TILE if options.vae_slices else None,
        stated=None if stated == StatedSizes() else stated,
    )


def _two_passes(request: Request, options: argparse.Namespace, model: DiffusionModel) -> Request:
    """The request with a smaller pass before it, where that is asked for. Sides of the first pass are
    multiples of 32; steps and strength of the command line are those of the second."""
    if not options.highres_fix_scale:
        return request
    side = model.default_resolution
    width, height = request.width or side, request.height or side
    small = [
        int(each * options.highres_fix_scale + 0.5) // _FIRST_MULTIPLE * _FIRST_MULTIPLE
        for each in (width, height)
    ]
    mode = "latent" if options.highres_fix_latents_upscaling else "image"
    hires = Hires(
        scale=1 / options.highres_fix_scale,
        mode=mode,
        steps=request.steps,
        strength=request.strength,
        width=width,
        height=height,
        save_first=options.highres_fix_save_1st,
    )
    first = request.strength if options.highres_fix_strength is None else options.highres_fix_strength
    return replace(
        request, width=small[0], height=small[1], steps=options.highres_fix_steps, strength=first, hires=hires
    )


def _png_text(request: Request, raw: str) -> dict[str, str]:
    """The text keys that ``gen_img.py`` of sd-scripts writes."""
    found = {
        "prompt": request.prompt,
        "seed": request.seed,
        "sampler": request.sampler,
        "steps": request.steps,
        "scale": request.scale,
        "negative-prompt": request.negative or None,
        "negative-scale": request.negative_scale,
        "raw-prompt": raw,
    }
    if request.stated:
        stated = request.stated
        found |= {
            "original-height": stated.height,
            "original-width": stated.width,
            "original-height-negative": stated.height_negative,
            "original-width-negative": stated.width_negative,
            "crop-top": stated.top,
            "crop-left": stated.left,
        }
    return {key: str(value) for key, value in found.items() if value is not None}


def _files(path: str | None, key: str) -> list[Path]:
    """A picture, or the pictures of a folder in the order of their names."""
    if not path:
        return []
    place = Path(path)
    found = [place]
    if place.is_dir():
        found = sorted(each for each in place.iterdir() if each.suffix.lower() in _PICTURES)
    if not found or not found[0].is_file():
        raise InputError(
            "there is no picture", where=path, next="Name a picture or a folder of them.", key=key
        )
    return found


def _at(values: Iterable[float] | None, index: int) -> float:
    """The value at ``index``, 1 where there are not so many."""
    found = list(values or ())
    return found[index] if index < len(found) else 1.0


def _say(what: str = "", path: str = "", note: str = "") -> None:
    print(f"note: {note}" if note else f"loading {path}")


def _steps(stream: object) -> Callable[[int, int], None] | None:
    """A line of progress that is overwritten, on a terminal."""
    write, live = getattr(stream, "write", None), getattr(stream, "isatty", None)
    if write is None or live is None or not live():
        return None

    def show(done: int, total: int) -> None:
        write(f"\r{done}/{total} steps" + ("\n" if done == total else ""))

    return show
