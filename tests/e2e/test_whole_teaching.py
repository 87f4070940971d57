"""Training the model itself teaches: the loss on the subject falls, that on its class hardly moves.

Real trainings of the small trained model on the demo's creature with class pictures, far too short to draw it.
Measured with always the same noise at four noise levels. It ran last on 2026-11-22:

                                     subject           class
    base                             0.267             0.029
    DreamBooth, 40 steps of 3e-4     0.194             0.035
    fine-tuning, 40 steps of 3e-4    0.200             0.035
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from backend import families, keyed
from backend.demo import sets, subject
from backend.demo.session import BUNDLED
from backend.families.base import DiffusionModel
from backend.train.entry import train_from_line
from tests.e2e.test_teaching import make_pictures

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
STEPS = 40
LEVELS = (200, 400, 600, 800)


def caption(picture: Path) -> str:
    found = [
        path for path in (picture.with_suffix(".txt"), picture.with_suffix(".caption")) if path.is_file()
    ]
    return found[0].read_text(encoding="utf-8").strip() if found else picture.parent.name.partition("_")[2]


@torch.no_grad()
def loss(model: DiffusionModel, pictures: Sequence[Path]) -> float:
    """Mean squared error of the predicted noise, always of the same noise."""
    kept, times, found = model.alphas_cumprod(), torch.tensor(LEVELS), list[float]()
    for path in pictures:
        pixels = torch.tensor(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1
        sides = [side // model.scale_factor for side in pixels.shape[-2:]]
        latents = model.encode_images(pixels, torch.zeros(1, model.latent_channels, *sides))
        noise = torch.randn(
            len(LEVELS), *latents.shape[1:], generator=keyed.generator(1, "measure", path.name)
        )
        share = kept[times].view(-1, 1, 1, 1)
        text = model.encode_text(model.tokenize([caption(path)] * len(LEVELS)))
        predicted = model.predict(share.sqrt() * latents + (1 - share).sqrt() * noise, times, text)
        found.append(float((predicted - noise).square().mean()))
    return float(np.mean(found))


@pytest.mark.parametrize(("prog", "method"), [("train_db.py", "dreambooth"), ("fine_tune.py", "finetune")])
def test_the_subject_is_learnt_and_the_class_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prog: str, method: str
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    torch.set_num_threads(1)
    pictures = make_pictures(tmp_path)
    sets.make_regularisation(tmp_path / "regularisation")
    line = [
        f"--pretrained_model_name_or_path={BUNDLED}", f"--train_data_dir={pictures}",
        f"--reg_data_dir={tmp_path / 'regularisation'}", f"--resolution={subject.SIZE}", "--train_batch_size=4",
        "--learning_rate=3e-4", f"--max_train_steps={STEPS}", "--cache_latents", "--caption_extension=.txt",
        "--seed=1", f"--output_dir={tmp_path / 'out'}", "--output_name=taught", "--recovery_minutes=0",
    ]  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train_from_line(line, prog, (), method) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    shown = sorted((pictures / subject.FOLDER).glob("*.png"))[:6]
    others = sorted((tmp_path / "regularisation").rglob("*.png"))[:6]
    base, taught = families.load(BUNDLED), families.load(tmp_path / "out" / "taught.safetensors")
    before, after = ([loss(model, some) for some in (shown, others)] for model in (base, taught))
    fall, rise = before[0] - after[0], after[1] - before[1]
    print(f"{method}: subject {before[0]:.4f} to {after[0]:.4f}, class {before[1]:.4f} to {after[1]:.4f}")
    assert after[0] < 0.9 * before[0]
    assert rise < fall / 2, "what is kept by class pictures moves far less than what is learnt"
