"""Whole trainings of words (textual inversion, XTI), in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend import families
from backend.generate import engine, words
from backend.generate.request import Request
from backend.networks.embedding_files import read_embedding
from backend.system.identify import identify
from tests.e2e.conftest import events
from tests.e2e.workshop import WORD, XL_WORD, Workshop, typed

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("own_signals", "a_process_of_its_own")]


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
    assert shop.train(WORD, output_name=None, training_comment="by hand", num_vectors_per_token=3, sample_prompt_text="a sks --w 64 --h 64 --s 2 --d 3",
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
    assert metadata["ss_training_comment"] == "by hand" and metadata["ss_steps"] == "2"
    assert metadata["atelier.training_method"] == "textual_inversion"
    assert not [key for key in metadata if "network" in key], "by which other programs tell a LoRA"
    assert identify(path).kind == "embedding"
    samples = [record["path"] for record in events(run, "sample")]
    assert len(samples) == 3 and len({(run / path).read_bytes() for path in samples}) == 3
    assert "fault" not in events(run, "result")[-1]["facts"]


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
    assert shop.train(WORD, output_name="layers2", weights=path, no_metadata=True, **options) == 0
    with safe_open(shop.out("layers2.safetensors"), "pt") as file:
        assert all(key.startswith("modelspec.") for key in file.metadata())
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
