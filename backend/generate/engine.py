"""From requests to pictures: guidance, noise, sampling, decoding.

A picture depends on its request and the model alone. Its noise comes from a generator on the CPU
that only it uses, so that batch size, position and device do not change it.

Classifier-free guidance: Ho and Salimans 2022 (arXiv 2207.12598).
Shapes: B pictures, C latent channels, h and w latent sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.generate import emphasis, samplers
from backend.generate.request import DEFAULT_SAMPLER, MIN_SIDE, Request, fitted, singles

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) of the pictures being drawn."""
ShouldStop = Callable[[], bool]

_HALF = (torch.float16, torch.bfloat16)


class Stopped(Exception):
    """Drawing was interrupted on request."""


@dataclass(frozen=True)
class Drawn:
    """A finished picture."""

    request: Request
    """For this one picture: real size, seed, and notes."""
    image: Image.Image
    fault: str = ""
    """Why the picture is likely unusable (black, one colour), with the likely cause."""


def generate(
    model: DiffusionModel,
    requests: Iterable[Request],
    *,
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Image.Image]:
    """The pictures of all requests in order. See :func:`draw`."""
    return [drawn.image for drawn in draw(model, requests, on_step=on_step, should_stop=should_stop)]


def draw(
    model: DiffusionModel,
    requests: Iterable[Request],
    *,
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[Drawn]:
    """Pictures as they are finished, each with what it was made from.

    ``model`` is used where it is, with whatever networks are attached; its training mode is left as
    it was. Raises :class:`Stopped` within one step after ``should_stop`` returns True, and
    InputError for a sampler that does not exist.
    """
    pictures = [picture for request in requests for picture in resolve(model, request)]
    for batch in _batches(pictures):
        yield from _draw_batch(model, batch, on_step or _ignore, should_stop or _never)


def resolve(model: DiffusionModel, request: Request) -> list[Request]:
    """One request a picture, as it will really be drawn: size, seed, steps, sampler, with notes."""
    _refuse_undrawn(request)
    name = samplers.canonical(request.sampler)
    if name is None:
        known = ", ".join(samplers.SAMPLERS)
        raise InputError(f"there is no sampler '{request.sampler}'", next=f"Choose one of: {known}.")
    sampler = samplers.for_flow(name) if model.prediction == "flow" else name
    asked = replace(request, sampler=sampler)
    ready = fitted(asked, model.default_resolution, max(model.scale_factor, model.side_multiple))
    return singles(ready.noted(*_sampler_notes(name, sampler), *_cut_notes(model, ready)))


_UNDRAWN = (
    *("negative_scale", "loras", "embeddings", "vae", "image", "mask", "hires", "vae_tile"),
    *("variation_strength", "guides", "stated"),
)
"""Fields of a request that nothing here draws by yet."""


def _refuse_undrawn(request: Request) -> None:
    plain = Request()
    for name in _UNDRAWN:
        if getattr(request, name) != getattr(plain, name):
            raise InputError(f"'{name}' cannot be drawn with yet", next="Leave it out.", key=name)


def _sampler_notes(asked: str, used: str) -> list[str]:
    """What is said when a sampler is not for the model; the default one is exchanged without a word."""
    if asked in (used, DEFAULT_SAMPLER):
        return []
    return [f"{samplers.SAMPLERS[asked].label} is for models of diffusion; a flow is drawn with Euler"]


@torch.no_grad()
def sample(
    model: DiffusionModel,
    pictures: Sequence[Request],
    on_step: OnStep | None = None,
    should_stop: ShouldStop | None = None,
) -> Tensor:
    """Scaled latents (B, C, h, w) float32 of resolved requests that differ in prompt and seed only."""
    first = pictures[0]
    device = _device(model)
    with _evaluating(model), _autocast(model):
        predict = _guided(model, pictures)
        scheduler = _scheduler(model, first)
        generators = [torch.Generator().manual_seed(picture.seed or 0) for picture in pictures]
        latents = _noise(model, first, generators).to(device) * samplers.first_sigma(scheduler)
        times = list(scheduler.timesteps)
        for index, time in enumerate(times):
            if should_stop and should_stop():
                raise Stopped
            output = predict(samplers.scaled(scheduler, latents, time), time)
            latents = _step(scheduler, output, time, latents, generators)
            if on_step:
                on_step(math.ceil((index + 1) * first.steps / len(times)), first.steps)
    return latents


def _scheduler(model: DiffusionModel, request: Request) -> Any:
    if model.prediction == "flow":
        return samplers.build_flow(request.sampler, request.steps)
    return samplers.build(request.sampler, model.alphas_cumprod(), model.prediction, request.steps)


def _step(scheduler: Any, output: Tensor, time: Tensor, latents: Tensor, generators: Any) -> Tensor:
    noise = {"generator": generators} if samplers.takes_generator(scheduler) else {}
    return scheduler.step(output, time, latents, return_dict=False, **noise)[0].float()


def _guided(model: DiffusionModel, pictures: Sequence[Request]) -> Callable[[Tensor, Tensor], Tensor]:
    """The model's prediction with guidance, as a function of latents and one timestep."""
    first, size = pictures[0], len(pictures)
    guided = first.scale > 1
    texts = [picture.negative for picture in pictures] if guided else []
    prompts = [*texts, *(picture.prompt for picture in pictures)]
    device, dtype = _device(model), _dtype(model)
    conditioning = emphasis.encode(model, prompts, first.max_token_length, first.clip_skip, device)

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        doubled = torch.cat([latents, latents]) if guided else latents
        timesteps = time.to(device).expand(len(doubled))
        output = model.predict(doubled.to(dtype), timesteps, conditioning).float()
        if not guided:
            return output
        without, wanted = output.split(size)
        return without + first.scale * (wanted - without)

    return predict


def _noise(model: DiffusionModel, request: Request, generators: list[torch.Generator]) -> Tensor:
    assert request.width and request.height, "sizes are decided before sampling"
    sides = request.height // model.scale_factor, request.width // model.scale_factor
    shape = (1, model.latent_channels, *sides)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


def _draw_batch(
    model: DiffusionModel, batch: list[Request], on_step: OnStep, should_stop: ShouldStop
) -> list[Drawn]:
    latents = sample(model, batch, on_step, should_stop)
    return [_finish(model, request, latents[i : i + 1]) for i, request in enumerate(batch)]


def _finish(model: DiffusionModel, request: Request, latents: Tensor) -> Drawn:
    """Decode one picture and look whether it came out."""
    if not bool(torch.isfinite(latents).all()):
        fault = (
            "the model's output holds NaN or infinity: the learning rate is likely too high, "
            "or the weights overflow in half precision"
        )
        black = Image.new("RGB", (request.width or MIN_SIDE, request.height or MIN_SIDE))
        return Drawn(request, black, f"the picture is black because {fault}")
    pixels, note = decode(model, latents)
    image = to_image(pixels[0])
    return Drawn(request.noted(note), image, constant_fault(image))


@torch.no_grad()
def decode(model: DiffusionModel, latents: Tensor) -> tuple[Tensor, str]:
    """Pixels (B, 3, H, W) in -1..1 of latents, and a note ('' when all went as usual).

    The VAE is on the denoiser's device only meanwhile. When half precision overflows, the picture
    is decoded once more in float32.
    """
    device = _device(model)
    plain = torch.autocast(device.type, enabled=False)
    with _moved(model.vae, device), evaluating([model.vae]), plain:
        pixels = model.decode_latents(latents)
        if bool(torch.isfinite(pixels).all()):
            return pixels, ""
        with _as_float32(model.vae):
            pixels = model.decode_latents(latents)
    return pixels.nan_to_num(-1.0), "the VAE overflowed in half precision and was used in float32"


def to_image(pixels: Tensor) -> Image.Image:
    """An RGB picture of pixels (3, H, W) in -1..1."""
    scaled = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    return Image.fromarray(scaled.permute(1, 2, 0).numpy())


def constant_fault(image: Image.Image) -> str:
    """A sentence with the likely cause when a picture is (nearly) one colour, else ''."""
    values = np.asarray(image, dtype=np.float32)
    if float(values.std(axis=(0, 1)).max()) >= 1.0:
        return ""
    colour = "black" if float(values.mean()) < 2 else "one colour only"
    cause = (
        "the VAE likely overflowed in half precision (try 'VAE in full precision')"
        if colour == "black"
        else "the weights are likely broken by too high a learning rate, or the file is no finished model"
    )
    return f"the picture is {colour}: {cause}"


def _cut_notes(model: DiffusionModel, request: Request) -> list[str]:
    limit = request.max_token_length or 75
    texts = {"prompt": request.prompt, "negative prompt": request.negative}
    counts = {name: emphasis.token_count(model, text) for name, text in texts.items()}
    return [
        f"the {name} has {count} tokens, only the first {limit} are read"
        for name, count in counts.items()
        if count > limit
    ]


def _batches(pictures: Sequence[Request]) -> Iterator[list[Request]]:
    """Neighbours that can share one pass, at most ``batch`` of them."""
    batch: list[Request] = []
    for picture in pictures:
        if batch and (len(batch) >= batch[0].batch or _shared(picture) != _shared(batch[0])):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def _shared(request: Request) -> Request:
    return replace(request, prompt="", negative="", seed=0, notes=())


def _device(model: DiffusionModel) -> torch.device:
    return next(model.denoiser.parameters()).device


def _dtype(model: DiffusionModel) -> torch.dtype:
    """The denoiser's floating type; types made for storage only count as float32."""
    dtype = next(model.denoiser.parameters()).dtype
    return dtype if dtype in _HALF else torch.float32


def _autocast(model: DiffusionModel) -> AbstractContextManager[Any]:
    """Autocast for half-precision weights, so that networks kept in float32 can be attached."""
    dtype = _dtype(model)
    return torch.autocast(_device(model).type, dtype=dtype) if dtype in _HALF else nullcontext()


def _evaluating(model: DiffusionModel) -> AbstractContextManager[None]:
    return evaluating(model.parts().values())


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Generator[None, None, None]:
    """Evaluation mode (no dropout) meanwhile; every submodule gets its own mode back."""
    training = [module for root in modules for module in root.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _moved(module: nn.Module, device: torch.device) -> Generator[None, None, None]:
    home = next(module.parameters()).device
    if home == device:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


@contextmanager
def _as_float32(module: nn.Module) -> Generator[None, None, None]:
    dtype = next(module.parameters()).dtype
    module.float()
    try:
        yield
    finally:
        module.to(dtype)


def _ignore(done: int, total: int) -> None:
    return


def _never() -> bool:
    return False
