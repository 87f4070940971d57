"""Words that a model was taught: how captions with them are read, and what they change."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from backend import families
from backend.demo import tiny
from backend.errors import InputError
from backend.families.parts.words import Words
from backend.generate import words
from backend.networks.embedding_files import file_tensors
from backend.networks.embeddings import Embedding

CAPTION = "a photo of mycat on a mat"


@pytest.fixture(scope="module")
def sd1(tiny_sd15):
    return families.load(tiny_sd15, dtype=torch.float32)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdxl") / "tiny.safetensors"
    tiny.build_tiny_sdxl(path)
    return families.load(path, dtype=torch.float32)


def vectors(model, count, seed=0, layers=()):
    draw = torch.Generator().manual_seed(seed)
    times = max(1, len(layers))
    tables = {
        table.name: torch.randn(count * times, table.module.embedding_dim, generator=draw) * 0.02
        for table in model.word_tables()
    }
    return Embedding(tables, layers)


def files(folder, **embeddings):
    for name, embedding in embeddings.items():
        tensors = {key: rows.contiguous() for key, rows in file_tensors(embedding).items()}
        save_file(tensors, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in embeddings}


def hidden(model, text):
    return model.encode_text(model.tokenize([text]))["hidden"]


def test_a_word_is_found_whole_whatever_its_case_and_the_longest_first():
    known = Words({"cat": (1,), "cat-toy": (2, 3), "<s>": (4,)})
    assert list(known.split("A Cat, cat-toys CAT-TOY cats <s>x")) == [
        ("A ", (1,)), (", ", (1,)), ("-toys ", (2, 3)), (" cats ", (4,)), ("x", ()),
    ]  # fmt: skip
    assert known.found_in("a CAT and cats") == {"cat"}


def test_a_word_of_three_vectors_takes_three_places(sd1, tmp_path):
    before = sd1.tokenize([CAPTION])["te"][0, 0]
    with words.knowing(sd1, files(tmp_path, mycat=vectors(sd1, 3))):
        ids = sd1.tokenize([CAPTION])["te"][0, 0]
        assert sd1.token_count("mycat") == 3
        weighted = sd1.tokenize_weighted(["a (mycat:1.5)"])
    assert ids[4:7].tolist() == [49408, 49409, 49410]
    assert ids[:4].tolist() == before[:4].tolist()
    assert weighted[1]["te"][0, 0, 2:5].tolist() == [1.5, 1.5, 1.5]
    assert sd1.tokenize([CAPTION])["te"][0, 0].tolist() == before.tolist()


def test_a_word_with_the_vector_of_a_known_one_reads_as_that(sd1, tmp_path):
    table = sd1.word_tables()[0].module
    dog = sd1.tokenize(["dog"])["te"][0, 0, 1]
    with words.knowing(sd1, files(tmp_path, mycat=Embedding({"emb_params": table.weight[dog][None]}))):
        taught = hidden(sd1, CAPTION)
    assert torch.equal(taught, hidden(sd1, CAPTION.replace("mycat", "dog")))


def test_texts_without_the_word_and_the_model_afterwards_are_as_before(sd1, tmp_path):
    state = {name: tensor.clone() for name, tensor in sd1.text_encoders["te"].state_dict().items()}
    plain, before = hidden(sd1, "a mat"), hidden(sd1, CAPTION)
    with words.knowing(sd1, files(tmp_path, mycat=vectors(sd1, 2))):
        assert torch.equal(hidden(sd1, "a mat"), plain)
        assert not torch.equal(hidden(sd1, CAPTION), before)
    assert torch.equal(hidden(sd1, CAPTION), before)
    after = sd1.text_encoders["te"].state_dict()
    assert after.keys() == state.keys() and all(torch.equal(after[name], state[name]) for name in state)


def test_words_are_put_on_top_of_words(sd1, tmp_path):
    found = files(tmp_path, mycat=vectors(sd1, 2), mydog=vectors(sd1, 1, seed=1))
    both = "mydog and mycat"
    with words.knowing(sd1, found):
        together = hidden(sd1, both)
    with words.knowing(sd1, {"mydog": found["mydog"]}), words.knowing(sd1, {"mycat": found["mycat"]}):
        stacked = hidden(sd1, both)
    assert torch.equal(together, stacked)


def test_both_encoders_of_sdxl_read_the_word(sdxl, tmp_path):
    with words.knowing(sdxl, files(tmp_path, mycat=vectors(sdxl, 2))):
        tokens = sdxl.tokenize([CAPTION])
        taught = sdxl.encode_text(tokens)
    assert all(ids[0, 0, 4:6].tolist() == [49408, 49409] for ids in tokens.values())
    before = sdxl.encode_text(sdxl.tokenize([CAPTION]))
    width = sdxl.word_tables()[0].module.embedding_dim
    for part in (slice(0, width), slice(width, None)):
        assert not torch.allclose(taught["hidden"][..., part], before["hidden"][..., part])
    assert not torch.allclose(taught["pooled"], before["pooled"])


def test_each_layer_reads_its_own_vectors(sd1, tmp_path):
    """A context for each layer gives what the U-Net gives when each layer is told that text alone."""
    layers = sd1.context_layers()
    assert layers == (
        "IN01",
        "IN02",
        "IN04",
        "IN05",
        "IN07",
        "IN08",
        "MID",
        *(f"OUT{i:02d}" for i in range(3, 12)),
    )
    layered = vectors(sd1, 2, layers=layers)
    rows = layered.tables["emb_params"].split(2)
    with words.knowing(sd1, files(tmp_path, mycat=layered, mydog=vectors(sd1, 1, seed=5))):
        states = hidden(sd1, f"{CAPTION} with mydog")
        weighed = sd1.weigh_text({"hidden": states}, sd1.tokenize_weighted(["(mat:1.2)"])[1])["hidden"]
    assert states.shape[:2] == (1, 16) and weighed.shape == states.shape
    for index in (0, 6, 15):
        one = Embedding({"emb_params": rows[index]})
        with words.knowing(sd1, files(tmp_path, mycat=one, mydog=vectors(sd1, 1, seed=5))):
            torch.testing.assert_close(states[:, index], hidden(sd1, f"{CAPTION} with mydog"))


def test_the_unet_gives_each_transformer_its_text(sd1):
    seen: list[float] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[1][0, 0, 0])))
        for name, module in sd1.unet.named_modules()
        if name.split(".")[-2:-1] == ["attentions"]
    ]
    texts = torch.arange(16.0).view(1, 16, 1, 1).expand(1, 16, 77, 48)
    with torch.no_grad():
        alike = sd1.predict(torch.ones(1, 4, 8, 8), torch.tensor([5]), {"hidden": texts[:, 3]})
        same = sd1.predict(
            torch.ones(1, 4, 8, 8), torch.tensor([5]), {"hidden": texts[:, 3:4].expand_as(texts)}
        )
        seen.clear()
        sd1.predict(torch.ones(1, 4, 8, 8), torch.tensor([5]), {"hidden": texts})
    for hook in hooks:
        hook.remove()
    assert seen == [float(i) for i in range(16)]
    assert torch.equal(alike, same)


def test_only_files_whose_word_is_used_are_taken(tmp_path):
    for name in ("cat.pt", "easynegative.safetensors", "unused.pt"):
        (tmp_path / name).touch()
    found = words.used(tmp_path, ["a (Cat:1.2)", "EasyNegative, blurry"])
    assert found.keys() == {"cat", "easynegative"}
    with pytest.raises(InputError, match="folder of embeddings was not found"):
        words.used(tmp_path / "none", ["cat"])


def test_a_word_for_another_kind_of_model_is_refused(sd1, sdxl, tmp_path):
    found = files(tmp_path, mycat=vectors(sdxl, 1))
    with pytest.raises(InputError, match="another kind of model"), words.knowing(sd1, found):
        pass
