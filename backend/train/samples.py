"""Sample pictures while training.

A sample never changes the run: random streams and training modes are as before, memory is given
back, and whatever goes wrong becomes a warning.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend import keyed
from backend.errors import Problem
from backend.families.base import DiffusionModel
from backend.generate import engine, parameters, pictures, pixels, prompts
from backend.generate.faults import problems_of
from backend.generate.request import Request
from backend.jobs.events import Sink
from backend.settings import Settings

_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class PromptSource:
    """Where prompts come from: text of the form and a file, which may change during the run."""

    text: str = ""
    path: Path | None = None
    defaults: Request = field(default_factory=Request)
    _stamp: tuple[int, int] | None = None

    def changed(self) -> bool:
        """True when the file is another one than at the last :meth:`read`."""
        return self._file_stamp() != self._stamp

    def read(self) -> list[Request]:
        """All prompts. Raises InputError when the file cannot be read."""
        stamp = self._file_stamp()
        from_file = prompts.read_prompt_file(self.path, self.defaults) if self.path else []
        self._stamp = stamp
        return prompts.parse_lines(self.text, self.defaults) + from_file

    def _file_stamp(self) -> tuple[int, int] | None:
        try:
            facts = self.path.stat() if self.path else None
        except OSError:
            return None
        return (facts.st_mtime_ns, facts.st_size) if facts else None


def _never() -> bool:
    return False


@dataclass
class Sampler:
    """Draws the run's prompts with the model as it is now, attached network included."""

    prompts: list[Request]
    every_steps: int | None
    every_epochs: int | None
    at_first: bool
    folder: Path
    """The run's ``samples`` folder."""
    name: str
    events: Sink
    model: DiffusionModel
    seed: int = 0
    """The run's seed: prompts without a seed get one from it, the same at every step."""
    network: nn.Module | None = None
    """The network in training, so that its dropout rests meanwhile."""
    show: Callable[[Tensor | None], None] | None = None
    """Lets what is trained follow a picture (1, 3, H, W) in -1..1, or none."""
    source: PromptSource | None = None
    autocast: torch.dtype | None = None
    should_stop: Callable[[], bool] = _never
    """Asked at every sampling step: a Stop is not kept waiting for a picture."""
    _said: set[str] = field(default_factory=set)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        run_path: Path,
        name: str,
        events: Sink,
        model: DiffusionModel,
        *,
        seed: int = 0,
        network: nn.Module | None = None,
        should_stop: Callable[[], bool] = _never,
        show: Callable[[Tensor | None], None] | None = None,
    ) -> Sampler:
        """The sampler that the settings ask for, writing into ``run_path/samples``.

        A prompt file that cannot be read is a warning; it is tried again at the next sample.
        """
        wanted = settings.sampling
        path = Path(wanted.sample_prompts) if wanted.sample_prompts else None
        sampler = cls(
            prompts=[],
            every_steps=None if wanted.sample_every_n_epochs else wanted.sample_every_n_steps,
            every_epochs=wanted.sample_every_n_epochs,
            at_first=wanted.sample_at_first,
            folder=run_path / "samples",
            name=name,
            events=events,
            model=model,
            seed=seed,
            network=network,
            show=show,
            source=PromptSource(wanted.sample_prompt_text, path, _defaults(settings)),
            autocast=_AUTOCAST.get(settings.precision.mixed_precision),
            should_stop=should_stop,
        )
        sampler.read_prompts(0)
        return sampler

    def due(self, step: int, epoch_end: bool, epoch: int) -> bool:
        """Whether samples belong here: after ``step`` optimizer steps, or at the end of ``epoch``
        (1-based). Step 0 is the moment before training."""
        if epoch_end:
            return bool(self.every_epochs) and epoch % (self.every_epochs or 1) == 0
        if step == 0:
            return self.at_first
        return bool(self.every_steps) and step % (self.every_steps or 1) == 0

    def draw(self, step: int, epoch: int | None = None) -> None:
        """Draw every prompt and record it. Nothing is raised; ``epoch`` is only recorded."""
        with randomness_kept(), engine.evaluating([self.network] if self.network else []):
            if self.source and self.source.changed():
                self.read_prompts(step)
            for index, request in enumerate(self.prompts):
                if self.should_stop():
                    break
                self.events.emit(
                    "progress", phase="sampling", done=index, total=len(self.prompts), unit="pictures"
                )
                self._try_one(step, epoch, index, request)
        _free_memory()

    def read_prompts(self, step: int) -> None:
        """Take the prompts from their source; the old ones stay when it cannot be read."""
        assert self.source is not None
        try:
            self.prompts = self.source.read()
        except Exception as error:
            self._warn(step, "the sample prompts cannot be read", problems_of(error)[0])

    def ask_for(self, text: str, step: int) -> None:
        """Other prompts in place of the form's, from the next sample on; those of a file stay."""
        if self.source is not None:
            self.source.text = text
            self.read_prompts(step)
            self.events.emit(
                "note", text=f"sample prompts were changed at step {step}; now {len(self.prompts)}"
            )

    def _try_one(self, step: int, epoch: int | None, index: int, request: Request) -> None:
        try:
            self._draw_one(step, epoch, index, request)
        except engine.Stopped:
            return
        except Exception as error:
            problem = problems_of(error)[0]
            self._warn(step, f"sample {index + 1} could not be drawn, training goes on", problem)

    def _draw_one(self, step: int, epoch: int | None, index: int, request: Request) -> None:
        if request.seed is None or request.seed < 0:
            request = replace(request, seed=keyed.key(self.seed, "sample", index) % 2**32)
        with _autocast(self.model, self.autocast):
            request = self._guided(request)
            drawn = next(
                iter(engine.draw(self.model, [replace(request, count=1)], should_stop=self.should_stop))
            )
        ready = drawn.request
        stem = pictures.safe_name(f"{self.name}_{step:06d}_{index:02d}_{ready.seed}")
        path = pictures.save(drawn.image, self.folder / f"{stem}.png", parameters.parameters_text(ready))
        thumb = pictures.save_thumbnail(drawn.image, self.folder / "thumbs" / f"{path.stem}.jpg")
        self._emit_sample(step, epoch, index, ready, path, thumb)
        self._say(ready.notes, index)
        if drawn.fault:
            self._warn(step, f"sample {index + 1}: {drawn.fault}", Problem(drawn.fault, where=f"step {step}"))

    def _guided(self, request: Request) -> Request:
        """Let what is trained follow the request's guide, or nothing; the request without it."""
        if self.show is None:
            return request
        image = next((guide.image for guide in request.guides if not guide.path), "")
        ready = engine.resolve(self.model, replace(request, count=1, guides=()))[0]
        assert ready.width and ready.height, "sizes are decided before a picture is drawn"
        if image:
            picture = pixels.covering(pixels.open_picture(image, "guides"), ready.width, ready.height)
            with torch.no_grad():
                self.show(pixels.to_pixels(picture))
        else:
            self.show(None)
        note = "" if image else "it was drawn without a guide picture; name one as --cn FILE"
        return replace(request, guides=()).noted(note)

    def _emit_sample(
        self, step: int, epoch: int | None, index: int, request: Request, path: Path, thumb: Path
    ) -> None:
        run = self.folder.parent
        self.events.emit(
            "sample",
            step=step,
            epoch=epoch,
            index=index,
            prompt=request.prompt,
            path=path.relative_to(run).as_posix(),
            thumb=thumb.relative_to(run).as_posix(),
            seed=request.seed,
        )

    def _say(self, notes: tuple[str, ...], index: int) -> None:
        """Notes of a prompt, each once a run."""
        for text in (f"sample {index + 1}: {note}" for note in notes):
            if text not in self._said:
                self._said.add(text)
                self.events.emit("note", text=text)

    def _warn(self, step: int, text: str, problem: Problem) -> None:
        placed = replace(problem, where=problem.where or f"step {step}")
        self.events.emit("warning", text=f"step {step}: {text}: {problem.what}", problem=placed.as_dict())


def _defaults(settings: Settings) -> Request:
    return Request(
        sampler=settings.sampling.sample_sampler,
        clip_skip=settings.model.clip_skip,
        max_token_length=settings.model.max_token_length,
        zero_terminal_snr=settings.loss.zero_terminal_snr,
    )


def _autocast(model: DiffusionModel, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """The training's own precision, so that a sample shows what is being trained."""
    device = next(model.denoiser.parameters()).device.type
    return torch.autocast(device, dtype=dtype) if dtype else nullcontext()


@contextmanager
def randomness_kept() -> Generator[None, None, None]:
    """Leave every random stream of the process as it was."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
