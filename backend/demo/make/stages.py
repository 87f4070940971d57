"""The stages in order, each from what the ones before it left in the working folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from backend.demo.make import (
    captioner,
    export,
    latents,
    pictures,
    score,
    snapshots,
    start,
    tagger,
    text,
    unet,
    vae,
)
from backend.demo.make.course import Pace
from backend.demo.make.shapes import DEMO, Shapes
from backend.demo.reading import TagReader
from backend.demo.world import SIZE, Scene
from backend.errors import InputError
from backend.families.parts.vae import Vae

STAGES = ("vae", "text", "tagger", "captioner", "latents", "unet", "export", "score")
_SHARES = {"vae": 0.15, "detail": 0.15, "text": 0.05, "tagger": 0.08, "captioner": 0.2, "unet": 0.52}
"""How ``all`` divides its minutes."""


@dataclass(frozen=True)
class Making:
    """What is made, where, and from how much."""

    work: Path
    out: Path
    seed: int = 1
    shapes: Shapes = DEMO
    pool: int = 6000
    """Pictures that the VAE is trained on."""
    plain: int = 8000
    mixed: int = 12000
    """Scenes of each collection of latents."""
    shown: int = tagger.COUNT
    """Pictures that the tagger is trained on."""
    described: int = captioner.COUNT
    """Pictures that the captioner is trained on."""
    fresh: int = 200
    """Pictures that they have not seen and are tried on."""
    prompts: int = 100
    """Fixed prompts that are drawn to be scored."""
    sheet: Path | None = None
    """Where their sheet goes; beside the snapshots when none is named."""
    steps: int | None = None
    """At most so many steps a stage."""
    lesson: unet.Lesson = field(default_factory=unet.Lesson)
    decay: float | None = None
    """Share of the time over which the learning rate falls, instead of the stage's own."""
    rate: float | None = None
    """Learning rate of the stage instead of its own."""

    def beside(self, name: str) -> Path:
        """The folder of a model that comes with the main one."""
        return self.out.parent / name

    def pace(self, minutes: float, rate: float, **more: Any) -> Pace:
        if self.decay is not None:
            more["decay"] = self.decay
        return Pace(minutes, self.rate or rate, steps=self.steps, **more)


def run(making: Making, stages: Sequence[str], minutes: float) -> None:
    """Run ``stages``; together the trained ones take about ``minutes``."""
    trained = [stage for stage in stages if stage in _SHARES]
    whole = sum(_SHARES[stage] for stage in trained) or 1.0
    for stage in stages:
        share = minutes * _SHARES.get(stage, 0.0) / whole
        began = time.monotonic()
        _RUN[stage](making, share)
        print(f"{stage}: done in {(time.monotonic() - began) / 60:.1f} min", flush=True)


def _vae(making: Making, minutes: float) -> None:
    """Both halves until latents were made of it; from then on the decoder alone."""
    pool = pictures.pool(making.work / "pool.npy", making.pool, making.seed)
    if snapshots.load(making.work, "frozen") is None:
        pace = making.pace(minutes, 0.004, decay=0.4)
        vae.train(making.work, pool, making.shapes.vae, pace, making.seed)
        done = _folded_vae(making)
    else:
        pace = making.pace(minutes, 0.002, decay=0.4)
        vae.train_decoder(making.work, pool, finished_vae(making), pace, making.seed)
        done = finished_vae(making)
    sample = np.ascontiguousarray(pool[1:129:2])
    print(f"vae: PSNR {vae.psnr(done, sample):.2f} dB, {vae.psnr(done, sample, vae.NOISE):.2f} with noise")


def _start(making: Making, minutes: float) -> None:
    """Go on from a finished file instead of from snapshots."""
    steps = start.take_up(making.out, making.work, making.shapes, making.seed)
    print(f"start: the U-Net of {making.out} after {steps} steps", flush=True)


def _detail(making: Making, minutes: float) -> None:
    """Both halves of the finished VAE once more; nothing uses the result until ``swap``."""
    pool = pictures.pool(making.work / "pool.npy", making.pool, making.seed)
    pace = making.pace(minutes, 0.003, decay=0.4)
    vae.train_details(making.work, pool, finished_vae(making), pace, making.seed)
    done, sample = _detailed_vae(making), np.ascontiguousarray(pool[1:129:2])
    print(f"detail: PSNR {vae.psnr(done, sample):.2f} dB, {vae.psnr(done, sample, vae.NOISE):.2f} with noise")


def _swap(making: Making, minutes: float) -> None:
    """Take the VAE of ``detail``: latents are made anew, and the U-Net must be trained on for them."""
    done, made = _detailed_vae(making), _vae_history(making) | _spent(making, "detail")
    number = _snapshot(making, "frozen")["number"] + 1
    snapshots.save(making.work, "frozen", number, {"vae": done.state_dict(), "number": number, "made": made})
    snapshots.forget(making.work, "decoder")
    snapshots.forget(making.work, "detail")
    latents.forget(making.work)


def _detailed_vae(making: Making) -> Vae:
    coder = vae.unfolded(finished_vae(making)).eval()
    _averaged(coder, _snapshot(making, "detail"))
    return vae.folded(coder, _shown(making))


def _text(making: Making, minutes: float) -> None:
    pace = making.pace(minutes, 0.01, plain=0.1, decay=0.5)
    text.train(making.work, making.shapes.text, pace, making.seed)
    rates = text.accuracies(finished_reader(making), making.seed)
    print("text: " + ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items()), flush=True)


def _tagger(making: Making, minutes: float) -> None:
    pace = making.pace(minutes, 0.01, plain=0.1, decay=0.5)
    course = tagger.train(making.work, pace, finished_vae(making), making.seed, making.shown)
    network = cast(tagger.Tagger, course.module)
    course.use_average()
    record = {"seed": making.seed} | _spent(making, "tagger")
    size = tagger.write(network.eval(), making.beside("tagger"), making.seed, making.shown, record)
    print(f"{making.beside('tagger')}: {size / 1e6:.2f} MB", flush=True)
    score.try_tagger(making.beside("tagger"), _fresh(making))


def _captioner(making: Making, minutes: float) -> None:
    pace = making.pace(minutes, 0.02, plain=0.1, decay=0.5)
    course = captioner.train(making.work, pace, finished_vae(making), making.seed, making.described)
    learner = cast(captioner.Learner, course.module)
    course.use_average()
    record = {"seed": making.seed} | _spent(making, "captioner")
    size = captioner.write(learner.eval(), making.beside("captioner"), record)
    print(f"{making.beside('captioner')}: {size / 1e6:.2f} MB", flush=True)
    score.try_captioner(making.beside("captioner"), _fresh(making))


def _fresh(making: Making) -> list[tuple[Scene, Image.Image]]:
    """Scenes that no stage was taught with, and their pictures."""
    return score.fresh(making.seed + 1, making.fresh)


def _latents(making: Making, minutes: float) -> None:
    done = finished_vae(making)
    latents.fill(making.work, done, "plain", making.plain, making.seed)
    latents.fill(making.work, done, "mixed", making.mixed, making.seed)


def _unet(making: Making, minutes: float) -> None:
    _latents(making, 0.0)
    pace = making.pace(minutes, 0.016)
    reader = finished_reader(making)
    unet.train(making.work, making.shapes.unet, reader, pace, making.seed, making.lesson)


def _export(making: Making, minutes: float) -> None:
    state = _snapshot(making, "unet")
    net = unet.fresh(making.shapes.unet, making.seed)
    _averaged(net, state)
    words = text.widened(finished_reader(making), making.shapes.text, making.seed)
    model = export.assembled(net, words, finished_vae(making))
    size = export.write(model, making.out, history(making))
    print(f"{making.out}: {size / 1e6:.2f} MB", flush=True)


def _score(making: Making, minutes: float) -> None:
    """The fixed prompts, beside what the tagger reads in drawn pictures and in those the VAE hands back."""
    reader = TagReader(making.beside("tagger"))
    drawn = [pair for pair in _fresh(making) if len(pair[0].things) == 1]
    score.tell("drawn pictures", score.marks(reader, drawn))
    back = tagger.returned(finished_vae(making), np.stack([np.asarray(picture) for _, picture in drawn]))
    returned = [(scene, Image.fromarray(pixels)) for (scene, _), pixels in zip(drawn, back, strict=True)]
    score.tell("pictures through the VAE", score.marks(reader, returned))
    asked = score.draw_prompts(making.out, making.prompts)
    score.tell(f"{making.prompts} plain prompts", score.marks(reader, asked))
    path = making.sheet or making.work / f"sheet-{_snapshot(making, 'unet')['step']:06d}.png"
    score.sheet([picture for _, picture in asked]).save(path, optimize=True)
    print(path, flush=True)


_RUN = {
    "vae": _vae, "detail": _detail, "swap": _swap, "text": _text, "tagger": _tagger,
    "captioner": _captioner, "latents": _latents, "start": _start, "unet": _unet, "export": _export,
    "score": _score,
}  # fmt: skip


def history(making: Making) -> dict[str, Any]:
    """Steps and minutes of each stage, and the seed."""
    stages = _vae_history(making) | _spent(making, "text") | _spent(making, "unet")
    return {"seed": making.seed, "stages": stages, "picture side": SIZE}


def _vae_history(making: Making) -> dict[str, Any]:
    """What made the VAE that is in use."""
    return dict(_snapshot(making, "frozen")["made"]) | _spent(making, "decoder")


def _spent(making: Making, stage: str) -> dict[str, Any]:
    """Steps and minutes of one stage, nothing when it has not run."""
    state = snapshots.load(making.work, stage)
    return {} if state is None else {stage: {"steps": state["step"], "minutes": round(state["spent"], 1)}}


def finished_vae(making: Making) -> Vae:
    """The VAE as it was when its encoder was frozen, with the newest decoder.

    The first call freezes the encoder: latents and U-Net depend on it.
    """
    if snapshots.load(making.work, "frozen") is None:
        state = _folded_vae(making).state_dict()
        first = {"vae": state, "number": 1, "made": _spent(making, "vae")}
        snapshots.save(making.work, "frozen", 1, first)
    frozen = _snapshot(making, "frozen")
    whole = Vae(making.shapes.vae).eval().requires_grad_(False)
    whole.load_state_dict(frozen["vae"])
    newer = snapshots.load(making.work, "decoder")
    if newer is not None:
        whole.decoder.requires_grad_(True)
        whole.post_quant_conv.requires_grad_(True)
        _averaged(whole, newer)
    return whole.requires_grad_(False)


def _folded_vae(making: Making) -> Vae:
    """The VAE of the newest snapshot, with latents of unit variance on the world."""
    coder = vae.Coder(vae.fresh(making.shapes.vae, making.seed)).eval()
    _averaged(coder, _snapshot(making, "vae"))
    return vae.folded(coder, _shown(making))


def _shown(making: Making) -> torch.Tensor:
    """The pictures whose latents are to have zero mean and unit variance."""
    scenes = [pictures.world_picture(making.seed + 2, index, 0.3)[1] for index in range(64)]
    return pictures.pixels_of(np.stack(scenes))


def finished_reader(making: Making) -> text.Reader:
    reader = text.Reader(making.shapes.text).eval()
    _averaged(reader, _snapshot(making, "text"))
    return reader.requires_grad_(False)


def _snapshot(making: Making, stage: str) -> dict[str, Any]:
    state = snapshots.load(making.work, stage)
    if state is None:
        raise InputError(
            f"the stage **{stage}** has left nothing to go on from",
            where=str(making.work),
            next=f"run it first: tools/make_demo.py --stage {stage}",
        )
    return state


def _averaged(module: nn.Module, state: dict[str, Any]) -> None:
    """Put a snapshot's weights into ``module``, averaged where they are trained."""
    module.load_state_dict(state["module"])
    with torch.no_grad():
        trained = (parameter for parameter in module.parameters() if parameter.requires_grad)
        for parameter, value in zip(trained, state["average"], strict=True):
            parameter.copy_(value)
