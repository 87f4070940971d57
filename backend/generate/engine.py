"""From requests to pictures: what is asked for is settled, attached, drawn, decoded and looked at.

A picture depends on its request and the model alone. Its noise comes from a generator on the CPU
that only it uses, so that batch size, position and device do not change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.generate import pixels, prompts, samplers, sampling, text, vae, wildcards
from backend.generate.modes import evaluating
from backend.generate.preview import Preview
from backend.generate.request import DEFAULT_SAMPLER, MIN_SIDE, Request, fitted, singles
from backend.generate.watch import OnPreview, OnStep, ShouldStop, Stopped, Watch

if TYPE_CHECKING:
    from backend.generate.attachments import Attachments

__all__ = ["Drawn", "Stopped", "Watch", "draw", "evaluating", "generate", "resolve"]

_ATTACHED = ("loras", "embeddings", "vae", "guides")
"""Fields that change the model, not the drawing."""


@dataclass(frozen=True)
class Drawn:
    """A finished picture."""

    request: Request
    """For this one picture: real size, seed, and notes."""
    image: Image.Image
    fault: str = ""
    """Why the picture is likely unusable (black, one colour), with the likely cause."""
    first: Image.Image | None = None
    """The picture before it was enlarged, where that was asked for."""


def generate(
    model: DiffusionModel,
    requests: Iterable[Request],
    *,
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
    attachments: Attachments | None = None,
) -> list[Image.Image]:
    """The pictures of all requests in order. See :func:`draw`."""
    drawn = draw(model, requests, on_step=on_step, should_stop=should_stop, attachments=attachments)
    return [each.image for each in drawn]


def draw(
    model: DiffusionModel,
    requests: Iterable[Request],
    *,
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
    on_preview: OnPreview | None = None,
    preview_seconds: float = 1.0,
    attachments: Attachments | None = None,
) -> Iterator[Drawn]:
    """Pictures as they are finished, each with what it was made from.

    ``model`` is used where it is, with whatever networks are attached; its training mode is left as
    it was. ``attachments`` (of the same model) puts networks, embeddings, guides and another VAE to it as
    requests ask; without it such a wish is left out, with a note. Raises :class:`Stopped` before the next
    block of the denoiser after ``should_stop`` returns True, and InputError for what cannot be drawn.
    """
    pictures = [picture for request in requests for picture in resolve(model, request)]
    if attachments is None:
        pictures = [_left_out(picture) for picture in pictures]
    for group in _neighbours(pictures, [_attached(picture) for picture in pictures]):
        passing = attachments.use(group) if attachments else None
        for batch in _batches(model, group):
            watch = Watch(on_step, should_stop, on_preview, preview_seconds)
            yield from _draw_batch(model, batch, watch, passing)


def resolve(model: DiffusionModel, request: Request) -> list[Request]:
    """One request a picture, as it will really be drawn, with notes: size, seed, steps, sampler, wildcards
    replaced, and networks taken out of the prompt."""
    name = samplers.canonical(request.sampler)
    if name is None:
        known = ", ".join(samplers.SAMPLERS)
        raise InputError(f"there is no sampler '{request.sampler}'", next=f"Choose one of: {known}.")
    sampler = samplers.for_flow(name) if model.prediction == "flow" else name
    asked = _sized(replace(request, sampler=sampler))
    ready = fitted(asked, model.default_resolution, max(model.scale_factor, model.side_multiple))
    noted = ready.noted(*_sampler_notes(name, sampler))
    found = [prompts.with_networks(one) for each in singles(noted) for one in wildcards.settled(each)]
    return [one.noted(*_cut_notes(model, one)) for one in found]


def _sized(request: Request) -> Request:
    """A request without a size has that of its picture."""
    if not request.image or request.width or request.height:
        return request
    image = pixels.open_picture(request.image, "image")
    return replace(request, width=image.width, height=image.height)


def _sampler_notes(asked: str, used: str) -> list[str]:
    """What is said when a sampler is not for the model; the default one is exchanged without a word."""
    if asked in (used, DEFAULT_SAMPLER):
        return []
    return [f"{samplers.SAMPLERS[asked].label} is for models of diffusion; a flow is drawn with Euler"]


def _cut_notes(model: DiffusionModel, request: Request) -> list[str]:
    limit = 75 if request.max_token_length is None else request.max_token_length
    texts = {"prompt": request.prompt, "negative prompt": request.negative}
    counts = {name: text.token_count(model, words) for name, words in texts.items()}
    notes = (f"the {name} has {count} tokens, only the first {limit} are read" for name, count in
             counts.items() if limit and count > limit)  # fmt: skip
    return [note for note in notes if note not in request.notes]


def _left_out(picture: Request) -> Request:
    """The request without what cannot be put to a model here."""
    plain = Request()
    wanted = [name for name in _ATTACHED if getattr(picture, name) != getattr(plain, name)]
    changes = {name: getattr(plain, name) for name in wanted}
    return picture.noted(*(f"{name} cannot be used here and were left out" for name in wanted), **changes)


def _attached(picture: Request) -> Request:
    """What a request puts to the model, as a request of nothing else."""
    return Request(lora_folder=picture.lora_folder, width=picture.width, height=picture.height,
                   **{name: getattr(picture, name) for name in _ATTACHED})  # fmt: skip


def _neighbours(pictures: Sequence[Request], keys: Sequence[object]) -> Iterator[list[Request]]:
    """Pictures that follow each other and have the same key."""
    group: list[Request] = []
    for index, picture in enumerate(pictures):
        if group and keys[index] != keys[index - 1]:
            yield group
            group = []
        group.append(picture)
    if group:
        yield group


def _batches(model: DiffusionModel, pictures: Sequence[Request]) -> Iterator[list[Request]]:
    """Neighbours that can share one pass, at most ``batch`` of them."""
    sized = [replace(picture, max_token_length=_length(model, picture)) for picture in pictures]
    for group in _neighbours(sized, [_shared(picture) for picture in sized]):
        size = max(group[0].batch, 1)
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _length(model: DiffusionModel, picture: Request) -> int | None:
    """The ``max_token_length`` of a picture where it is said to be as long as its texts."""
    if picture.max_token_length != 0:
        return picture.max_token_length
    return max(text.tokens_needed(model, words) for words in (picture.prompt, picture.negative))


def _shared(request: Request) -> tuple[Request, int]:
    """What pictures of one pass have in common; so none depends on what is drawn beside it."""
    pieces = max(len(text.parts(words)) for words in (request.prompt, request.negative))
    return replace(request, prompt="", negative="", seed=0, variation_seed=0, notes=()), pieces


def _draw_batch(
    model: DiffusionModel, batch: list[Request], watch: Watch, passing: sampling.Passing | None
) -> list[Drawn]:
    found = sampling.sample(model, batch, watch, passing)
    firsts = found.first.split(1) if found.first is not None else [None] * len(batch)
    rows = zip(batch, found.final.split(1), firsts, strict=True)
    return [_finish(model, request, latents, first, watch) for request, latents, first in rows]


def _finish(
    model: DiffusionModel, request: Request, latents: Tensor, first: Tensor | None, watch: Watch
) -> Drawn:
    """Decode one picture and look whether it came out."""
    if not bool(torch.isfinite(latents).all()):
        fault = (
            "the model's output holds NaN or infinity: the learning rate is likely too high, "
            "or the weights overflow in half precision"
        )
        black = Image.new("RGB", (request.width or MIN_SIDE, request.height or MIN_SIDE))
        return Drawn(request, black, f"the picture is black because {fault}")
    decoded, note = vae.decode(model, latents, request.vae_tile, watch.check)
    preview = Preview.of(model)
    if preview.is_fitted:
        preview.learn(latents, decoded)
    image = _kept_outside(request, pixels.to_image(decoded[0]))
    before = None
    if first is not None and request.hires and request.hires.save_first:
        before = pixels.to_image(vae.decode(model, first, request.vae_tile, watch.check)[0][0])
    return Drawn(request.noted(note), image, pixels.constant_fault(image), before)


def _kept_outside(request: Request, image: Image.Image) -> Image.Image:
    """The picture with the given one, to the pixel, where the mask is black."""
    if not (request.image and request.mask):
        return image
    given, mask = sampling.fitted_image(request), sampling.fitted_mask(request)
    size = image.size
    return Image.composite(image, given.resize(size, _SMOOTH), mask.resize(size, _SMOOTH))


_SMOOTH = Image.Resampling.LANCZOS
