"""Whole trainings of words (textual inversion, XTI) and of ControlNet-LLLite, in this process."""

from __future__ import annotations

import os
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend import families
from backend.demo import tiny
from backend.errors import InputError, run_main
from backend.generate import engine, words
from backend.generate.request import Request
from backend.jobs.control import send
from backend.jobs.runs import open_run
from backend.networks.embedding_files import read_embedding
from backend.system.identify import identify
from backend.train import run as train_run
from backend.train.entry import train_from_line
from tests.e2e.conftest import draw_pictures, events

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    "train_textual_inversion.py": (("sd1", "sd2"), "textual_inversion"),
    "sdxl_train_textual_inversion.py": (("sdxl",), "textual_inversion"),
    "sdxl_train_control_net_lllite.py": (("sdxl",), "lllite"),
}
WORD, XL_WORD, LLLITE = TOOLS


@dataclass(frozen=True)
class Workshop:
    """Small models, four pictures with guides, and a home for runs."""

    home: Path
    sd1: Path
    sdxl: Path
    pictures: Path
    guides: Path

    def line(self, tool: str, **more: Any) -> list[str]:
        """A command line; a value of None leaves an option out, True is a bare switch."""
        values: dict[str, Any] = {
            "pretrained_model_name_or_path": self.sd1 if tool == WORD else self.sdxl,
            "train_data_dir": self.pictures,
            "resolution": "64",
            "learning_rate": "5e-3",
            "max_train_steps": 2,
            "seed": 42,
            "cache_latents": True,
            "output_name": "result",
            "output_dir": self.home / "out",
            "max_data_loader_n_workers": 0,
        }
        if tool == LLLITE:
            values |= {"conditioning_data_dir": self.guides, "cond_emb_dim": 8, "network_dim": 4}
        else:
            values |= {"token_string": "sks", "init_word": "cat"}
        found: list[str] = []
        for key, value in (values | more).items():
            if value is not None:
                found += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        return found

    def train(self, tool: str, **more: Any) -> int:
        families, method = TOOLS[tool]
        return run_main(lambda: train_from_line(self.line(tool, **more), tool, families, method))

    def out(self, name: str) -> Path:
        return self.home / "out" / name

    def runs(self) -> list[Path]:
        return sorted((self.home / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def shop(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    base = tmp_path_factory.mktemp("small")
    tiny.build_tiny_sdxl(base / "sdxl.safetensors")
    pictures = draw_pictures(base / "train", count=4)
    guides = base / "guides"
    guides.mkdir()
    for picture in (pictures / "2_sks shape").glob("*.png"):
        Image.open(picture).convert("L").convert("RGB").save(guides / picture.name)
    before = os.environ.get("ATELIER_HOME")
    os.environ["ATELIER_HOME"] = str(base)
    yield Workshop(base, tiny_sd15, base / "sdxl.safetensors", pictures, guides)
    os.environ.pop("ATELIER_HOME")
    if before is not None:
        os.environ["ATELIER_HOME"] = before


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_run, "stop_on_signals", lambda run: None)


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def started_with(model: Path, word: str, count: int) -> Tensor:
    """The vectors of a known word, over and over."""
    loaded = families.load(model, dtype=torch.float32)
    table = loaded.word_tables()[0].module.weight
    size = loaded.token_count(word)
    ids = loaded.tokenize([word])["te"][0, 0, 1 : 1 + size].tolist()
    return torch.stack([table[ids[index % len(ids)]] for index in range(count)])


def test_a_word_is_learnt_and_nothing_else_moves(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights of the model are the same bits after the run; only the file's rows have moved."""
    from backend.train import machine

    seen: list[tuple[Any, dict[str, Tensor]]] = []
    load = machine.load_base_model

    def loading(*args: Any) -> Any:
        model = load(*args)
        parts = {**model.parts(), "vae": model.vae}
        seen.append(
            (model, {f"{p}.{n}": t.clone() for p, m in parts.items() for n, t in m.state_dict().items()})
        )
        return model

    monkeypatch.setattr("backend.train.build.load_base_model", loading)
    assert shop.train(WORD, output_name=None, num_vectors_per_token=3, sample_prompt_text="a sks --w 64 --h 64 --s 2 --d 3",
                      sample_every_n_steps=1, sample_at_first=True, init_word="wildebeest") == 0  # fmt: skip
    (model, before), run = seen[0], shop.runs()[-1]
    after = {
        f"{p}.{n}": t
        for p, m in {**model.parts(), "vae": model.vae}.items()
        for n, t in m.state_dict().items()
    }
    assert before.keys() == after.keys()
    assert not [name for name in before if not torch.equal(before[name], after[name])]

    path = shop.out("sks.safetensors")
    learnt = load_file(path)["emb_params"]
    first = started_with(shop.sd1, "wildebeest", 3)
    assert learnt.shape == first.shape and (learnt != first).any(dim=1).all()
    assert (learnt - first).abs().max() < 0.05, "two steps of 5e-3"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert metadata["modelspec.trigger_phrase"] == metadata["modelspec.title"] == "sks"
    assert not [key for key in metadata if key.startswith("ss_")]
    assert identify(path).kind == "embedding"
    samples = [record["path"] for record in events(run, "sample")]
    assert len(samples) == 3 and len({(run / path).read_bytes() for path in samples}) == 3
    assert "fault" not in events(run, "result")[-1]["facts"]


@pytest.mark.parametrize("tool", [WORD, LLLITE])
def test_a_resumed_run_equals_a_straight_one_to_the_bit(shop: Workshop, tool: str) -> None:
    out = shop.home / tool
    more: dict[str, Any] = {"flip_aug": True, "cache_latents": None, "output_dir": out}
    more |= {"shuffle_caption": True} if tool == WORD else {"network_dropout": 0.1}
    assert shop.train(tool, output_name="straight", max_train_steps=4, **more) == 0
    assert shop.train(tool, output_name="half", max_train_steps=2, save_state_on_train_end=True, **more) == 0
    more |= {"max_train_steps": 4, "resume": out / "half-state"}
    assert shop.train(tool, output_name="whole", **{**more, "seed": None}) == 0
    straight, half, whole = (out / f"{name}.safetensors" for name in ("straight", "half", "whole"))
    assert same(straight, whole) and not same(half, whole)
    changed = {"num_vectors_per_token": 2} if tool == WORD else {"cond_emb_dim": 16}
    assert shop.train(tool, output_name="other", **more, **changed) == 2


def controlled(root: Path, known: set[Path], commands: Callable[[Path], None]) -> threading.Thread:
    """Gives commands to the run that is made next."""

    def work() -> None:
        while not (found := [path for path in set(root.glob("*/")) - known if events(path, "phase")]):
            time.sleep(0.01)
        commands(found[0])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("tool", [XL_WORD, LLLITE])
def test_it_saves_pauses_and_stops_when_told_and_goes_on(shop: Workshop, tool: str) -> None:
    def states(run: Path) -> list[str]:
        return [record["state"] for record in events(run, "state")]

    def commands(run: Path) -> None:
        send(open_run(run), "save")
        send(open_run(run), "pause")
        while "paused" not in states(run):
            time.sleep(0.02)
        send(open_run(run), "resume")
        send(open_run(run), "stop")

    thread = controlled(shop.home / "runs", set((shop.home / "runs").glob("*/")), commands)
    name = f"told-{tool.split('_')[1]}-{tool[-9:-3]}"
    assert shop.train(tool, output_name=name, max_train_steps=4) == 0
    thread.join(10)
    run = shop.runs()[-1]
    assert states(run)[-1] == "stopped" and "paused" in states(run)
    saved = [Path(record["path"]) for record in events(run, "saved") if record["kind"] == "step"]
    assert saved and all(identify(path).kind in ("embedding", "lllite") for path in saved)
    open_run(run).control.unlink()  # commands count from when a process begins, and this one is the same
    assert train_run.train_folder(run, resume=True) == 0
    assert states(run)[-1] == "finished" and shop.out(f"{name}.safetensors").is_file()
    assert [record["step"] for record in events(run, "step")] == [1, 2, 3, 4]


def test_both_encoders_of_sdxl_learn_the_word(shop: Workshop) -> None:
    assert (
        shop.train(
            XL_WORD, output_name="xl", num_vectors_per_token=2, init_word=None, use_object_template=True
        )
        == 0
    )
    found = load_file(shop.out("xl.safetensors"))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "clip_l": (2, 16),
        "clip_g": (2, 24),
    }
    again = {"output_name": "xl2", "num_vectors_per_token": 2, "init_word": None, "use_object_template": True}
    assert (
        shop.train(
            XL_WORD, weights=shop.out("xl.safetensors"), save_model_as="pt", save_precision="fp16", **again
        )
        == 0
    )
    more = torch.load(shop.out("xl2.pt"), weights_only=True)
    assert {tensor.dtype for tensor in more.values()} == {torch.float16}
    for name, tensor in found.items():
        assert 0 < (more[name].float() - tensor).abs().max() < 0.05, "it went on from the file"


def test_a_word_for_each_layer_is_learnt_drawn_and_gone_on_with(shop: Workshop) -> None:
    options = {"xti": True, "num_vectors_per_token": 2}
    prompt = {"sample_prompt_text": "a sks --w 64 --h 64 --s 2", "sample_every_n_steps": 2}
    assert shop.train(WORD, output_name="layers", **options, **prompt) == 0
    path = shop.out("layers.safetensors")
    found = read_embedding(path)
    assert len(found.layers) == 16 and found.vectors == 2
    first = started_with(shop.sd1, "cat", 2)
    moved = [(rows != first).all() for rows in found.tables["emb_params"].split(2)]
    assert all(moved), "each layer's vectors have a gradient of their own"
    assert len({float(rows[0, 0]) for rows in found.tables["emb_params"].split(2)}) > 8
    assert len(events(shop.runs()[-1], "sample")) == 1
    assert shop.train(WORD, output_name="layers2", weights=path, **options) == 0
    assert shop.train(WORD, output_name="flat", weights=path, num_vectors_per_token=2) == 2


def test_the_file_is_a_word_in_generate_and_in_diffusers(shop: Workshop) -> None:
    """diffusers reads the file, and its text encoder then says the same of a prompt with the word."""
    transformers = pytest.importorskip("transformers")
    loaders = pytest.importorskip("diffusers.loaders")
    model = families.load(shop.sd1, dtype=torch.float32)
    draw = torch.Generator().manual_seed(4)
    vectors = torch.randn(2, 48, generator=draw) * 0.02
    save_file({"emb_params": vectors}, shop.out("mycat.safetensors"))
    prompt = "a photo of mycat on a mat"
    with words.knowing(model, words.used(shop.home / "out", [prompt])):
        ours = model.encode_text(model.tokenize([prompt]))["hidden"]
        picture = engine.generate(model, [Request(prompt=prompt, width=64, height=64, steps=2, seed=1)])[0]
    plain = engine.generate(model, [Request(prompt=prompt, width=64, height=64, steps=2, seed=1)])[0]
    assert picture.tobytes() != plain.tobytes()

    shape = model.text("te").shape
    config = transformers.CLIPTextConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner, hidden_act="quick_gelu",
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, eos_token_id=49407,
    )  # fmt: skip
    encoder = transformers.CLIPTextModel(config).eval()
    weights = model.text("te").state_dict()
    if not any(name.startswith("text_model.") for name in encoder.state_dict()):
        weights = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    assert not encoder.load_state_dict(weights, strict=False).missing_keys

    class Reader(loaders.TextualInversionLoaderMixin):
        tokenizer, text_encoder = clip_tokenizer(transformers, shop.home), encoder
        components: ClassVar[dict[str, Any]] = {}
        hf_device_map = None

    reader = Reader()
    reader.load_textual_inversion(str(shop.out("mycat.safetensors")), token="mycat")
    text = reader.maybe_convert_prompt(prompt, reader.tokenizer)
    ids = reader.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = encoder(ids).last_hidden_state
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def clip_tokenizer(transformers: Any, folder: Path) -> Any:
    """transformers' tokenizer with the bundled vocabulary."""
    import json

    from backend.data.tokens import bpe, merges

    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges())]
    (folder / "vocab.json").write_text(json.dumps(bpe().get_vocab()), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def test_a_guide_is_learnt_with_text_cached_and_steers_a_sample(shop: Workshop) -> None:
    guide = next(shop.guides.glob("*.png"))
    prompts = shop.home / "prompts.txt"
    prompts.write_text(
        f"a shape --w 64 --h 64 --s 2 --d 3 --cn {guide}\na shape --w 64 --h 64 --s 2 --d 3\n",
        encoding="utf-8",
    )
    options = {
        "sample_prompts": prompts,
        "sample_every_n_steps": 4,
        "max_train_steps": 4,
        "learning_rate": "5e-2",
    }
    assert (
        shop.train(
            LLLITE,
            output_name="lines",
            cache_text_encoder_outputs=True,
            gradient_checkpointing=True,
            **options,
        )
        == 0
    )
    run, path = shop.runs()[-1], shop.out("lines.safetensors")
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/control-net-lllite"
    assert not [key for key in metadata if key.startswith("ss_")]
    assert identify(path).kind == "lllite"
    assert all(name.startswith("lllite_unet_") for name in names)
    with_guide, without = ((run / record["path"]).read_bytes() for record in events(run, "sample"))
    assert with_guide != without
    assert any("without a guide picture" in record["text"] for record in events(run, "note"))
    assert shop.train(LLLITE, output_name="lines2", network_weights=path, max_train_steps=1) == 0
    assert shop.train(LLLITE, output_name="lines3", network_weights=path, network_dim=8) == 2


SETTINGS = """
pretrained_model_name_or_path = "{shop.sdxl}"
max_train_epochs = 12
max_data_loader_n_workers = 4
persistent_data_loader_workers = true
seed = 42
gradient_checkpointing = true
mixed_precision = "bf16"
save_precision = "bf16"
full_bf16 = true
optimizer_type = "adamw8bit"
learning_rate = 2e-4
xformers = true
output_dir = "{shop.home}/out"
output_name = "output_name"
save_every_n_epochs = 1
save_model_as = "safetensors"
vae_batch_size = 4
cache_latents = true
cache_latents_to_disk = true
cache_text_encoder_outputs = true
cache_text_encoder_outputs_to_disk = true
network_dim = 64
cond_emb_dim = 32
dataset_config = "{shop.home}/dataset.toml"
"""
"""Those of LLLite's own document, with other paths."""
DATASET = """
[general]
resolution = 64
caption_extension = ".txt"
[[datasets]]
batch_size = 2
  [[datasets.subsets]]
  image_dir = "{shop.pictures}/2_sks shape"
  conditioning_data_dir = "{shop.guides}"
"""


@pytest.fixture(autouse=True)
def a_process_of_its_own() -> Iterator[None]:
    """A process has one precision otherwise, that of the first run in it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def typed(monkeypatch: pytest.MonkeyPatch, tool: str, line: list[str]) -> int:
    """What a script of ``tools`` says to a command line."""
    monkeypatch.setattr("sys.argv", [tool, *line])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    return int(ended.value.code or 0)


def test_settings_of_the_documents_run_as_they_are(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shop.home / "run.toml"
    config.write_text(SETTINGS.format(shop=shop), encoding="utf-8")
    (shop.home / "dataset.toml").write_text(DATASET.format(shop=shop), encoding="utf-8")
    line = ["--config_file", str(config), "--allow_fallback", "--max_train_epochs", "1"]
    assert typed(monkeypatch, LLLITE, line) == 0
    weights = load_file(shop.out("output_name.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert len(events(shop.runs()[-1], "step")) == 2


@pytest.mark.parametrize(
    "tool, model, more",
    [
        ("train_textual_inversion.py", "sd1", ["--use_object_template", "--save_model_as=pt"]),
        ("train_textual_inversion_XTI.py", "sd1", ["--use_style_template", "--save_model_as=pt", "--clip_skip=2"]),
        ("sdxl_train_textual_inversion.py", "sdxl", ["--shuffle_caption", "--max_token_length=150"]),
    ],
)  # fmt: skip
def test_the_scripts_run_as_they_are_typed(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, tool: str, model: str, more: list[str]
) -> None:
    line = [
        f"--pretrained_model_name_or_path={getattr(shop, model)}", f"--train_data_dir={shop.pictures}", "--resolution=64",
        f"--output_dir={shop.home}/out", f"--output_name=typed-{tool[:-3]}", "--max_train_steps=2", "--learning_rate=1e-4",
        "--optimizer_type=AdamW8bit", "--xformers", "--mixed_precision=bf16", "--cache_latents", "--allow_fallback",
        "--gradient_checkpointing", "--prior_loss_weight=1.0", "--token_string=sks", "--init_word=cute",
        "--num_vectors_per_token=4", "--caption_extension=.txt", *more,
    ]  # fmt: skip
    assert typed(monkeypatch, tool, line) == 0
    (path,) = (shop.home / "out").glob(f"typed-{tool[:-3]}.*")
    found = read_embedding(path)
    assert found.vectors == 4 and bool(found.layers) == ("XTI" in tool)


def test_the_plan_is_told_without_weights(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tool, what in ((XL_WORD, "Textual inversion 'sks', 1 vector"), (LLLITE, "ControlNet-LLLite")):
        assert typed(monkeypatch, tool, [*shop.line(tool), "--dry_run"]) == 0
        told = capsys.readouterr().out
        assert what in told and "memory: about" in told, told


def test_faults_are_known_before_anything_is_loaded(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(tool: str, **more: Any) -> str:
        families, method = TOOLS[tool]
        with pytest.raises(InputError) as caught:
            code = train_from_line(shop.line(tool, **more), tool, families, method)
            assert code == 2, "it was not refused"
            raise InputError("in the run")
        assert "Loading" not in capsys.readouterr().out
        return caught.value.text()

    assert "no word to teach" in refused(WORD, token_string=None)
    assert "stands in no caption" in refused(WORD, token_string="mycat")
    assert "exclude each other" in refused(WORD, use_object_template=True, use_style_template=True)
    assert "cannot be used where a text encoder is trained" in refused(WORD, cache_text_encoder_outputs=True)
    assert "sdxl_train_textual_inversion.py" in refused(WORD, pretrained_model_name_or_path=shop.sdxl)
    assert "caption_dropout_rate has no use" in refused(WORD, caption_dropout_rate=0.1)
    assert "no guide pictures" in refused(LLLITE, conditioning_data_dir=None)
    assert "4 pictures without a conditioning picture" in refused(
        LLLITE, conditioning_data_dir=shop.home / "runs"
    )
    assert "no use where a ControlNet-LLLite is trained" in refused(LLLITE, network_alpha=4)
    word = shop.home / "word.safetensors"
    save_file({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, word)
    assert "this is a textual inversion embedding" in refused(LLLITE, network_weights=word)
