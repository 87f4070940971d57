"""The real size on real pictures: 1.07 billion random weights, six photographs of scikit-image.

About four minutes on two cores and 6 GB of memory; last run in November 2026, passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.e2e.conftest import ROOT, World

pytestmark = pytest.mark.slow

TRAIN = """
import resource, runpy, sys
sys.argv = ["train_network.py", *sys.argv[1:]]
try:
    runpy.run_path("tools/train_network.py", run_name="__main__")
finally:
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""

IN_DIFFUSERS = """
import json, logging, sys, torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextConfig, CLIPTextModel
from backend import families
model = families.load(sys.argv[1])
with torch.device("meta"):
    unet = UNet2DConditionModel(cross_attention_dim=768)
    text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12))
unet.load_state_dict(model.denoiser.state_dict(), assign=True)
theirs, own = text.state_dict(), model.text_encoders["te"].state_dict()
named = {name: own.get(name, own.get("text_model." + name)) for name in theirs}
text.load_state_dict({name: tensor for name, tensor in named.items() if tensor is not None}, assign=True, strict=False)
text.register_buffer("position_ids", torch.arange(77)[None], persistent=False)
for module in text.modules():
    if hasattr(module, "position_ids"):
        module.position_ids = torch.arange(77)[None]
pipe = StableDiffusionPipeline(vae=None, text_encoder=text, tokenizer=None, unet=unet, scheduler=None,
                               safety_checker=None, feature_extractor=None, requires_safety_checker=False)
torch.manual_seed(0)
latents, steps = torch.randn(1, 4, 16, 16), torch.tensor([500])
ids = model.tokenize(["a photo"])["te"][:, 0]
@torch.no_grad()
def draw():
    return unet(latents, steps, text(ids).last_hidden_state).sample
before = draw()
complaints = []
class Listen(logging.Handler):
    def emit(self, record):
        complaints.append(record.getMessage())
diffusers_logging.get_logger("diffusers").addHandler(Listen(level=logging.WARNING))
pipe.load_lora_weights(sys.argv[2])
after = draw()
layers = [n for m in (unet, text) for n, _ in m.named_modules() if n.endswith("lora_A.default_0")]
print(json.dumps({"layers": len(layers), "change": (after - before).abs().max().item(),
                  "complaints": [c for c in complaints if "unexpected" in c.lower() or "missing" in c.lower()]}))
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins"):
        Image.fromarray(getattr(data, name)()).convert("RGB").save(folder / f"{name}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def full_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "sd15.safetensors"
    subprocess.run([sys.executable, "tools/make_random_sd15.py", str(path)], cwd=ROOT, check=True)
    return path


def test_three_steps_within_memory_and_a_file_that_diffusers_loads(
    full_width: Path, photographs: Path, tmp_path: Path
) -> None:
    world = World(tmp_path, full_width, photographs)
    line = world.options(
        resolution="256", enable_bucket=True, class_tokens="a photo", max_train_steps=3, train_batch_size=1
    )
    done = world.python("-c", TRAIN, *line, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split("PEAK")[1]) < 20e9
    lora = tmp_path / "out" / "result.safetensors"
    assert len(load_file(lora)) == 264 * 3

    environment = {**world.environment, "PYTHONPATH": str(ROOT)}
    read = subprocess.run(
        [sys.executable, "-c", IN_DIFFUSERS, str(full_width), str(lora)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    assert found["layers"] == 264 and found["complaints"] == []
    assert found["change"] > 1e-4
