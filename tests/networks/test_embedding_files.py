from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backend.errors import InputError
from backend.networks import embedding_files
from backend.networks.embeddings import Embedding, rows_by_layer, spans
from backend.system.identify import identify

XTI = ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{i:02d}" for i in range(3, 12)))


class Table(NamedTuple):
    part: str
    name: str
    module: nn.Embedding


def read(path: Path, content: object) -> Embedding:
    if path.suffix == ".safetensors":
        save_file(content, path)  # type: ignore[arg-type]
    else:
        torch.save(content, path)
    return embedding_files.read_embedding(path)


@pytest.mark.parametrize(
    "ending, content",
    [
        (".pt", {"emb_params": torch.arange(6.0).view(2, 3)}),
        (".safetensors", {"emb_params": torch.arange(6.0).view(2, 3)}),
        (".bin", {"<cat>": torch.arange(6.0).view(2, 3)}),
        (".pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.arange(6.0).view(2, 3)}, "step": 9}),
        (".pt", {"string_to_param": nn.ParameterDict({"*": nn.Parameter(torch.arange(6.0).view(2, 3))})}),
        (".safetensors", {"string_to_param.*": torch.arange(6.0).view(2, 3).half()}),
    ],
)  # fmt: skip
def test_every_layout_of_one_encoder_gives_its_vectors(tmp_path, ending, content):
    found = read(tmp_path / f"cat{ending}", content)
    assert found.tables["emb_params"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.vectors == 2 and found.layers == ()


def test_a_single_vector_without_rows_is_one_row(tmp_path):
    assert read(tmp_path / "cat.bin", {"<cat>": torch.ones(4)}).tables["emb_params"].shape == (1, 4)


def test_sdxl_has_two_tables(tmp_path):
    content = {"clip_g": torch.ones(3, 6), "clip_l": torch.zeros(3, 4)}
    found = read(tmp_path / "cat.safetensors", content)
    assert list(found.tables) == ["clip_l", "clip_g"] and found.vectors == 3
    assert embedding_files.file_tensors(found).keys() == content.keys()


def test_layers_are_read_in_the_order_in_which_they_run_and_written_back(tmp_path):
    content = {name: torch.full((2, 4), float(i)) for i, name in enumerate(XTI)}
    found = read(tmp_path / "cat.safetensors", dict(reversed(content.items())))
    assert found.layers == XTI and found.vectors == 2
    assert found.tables["emb_params"][:, 0].tolist() == [float(i) for i in range(16) for _ in range(2)]
    back = embedding_files.file_tensors(found)
    assert back.keys() == content.keys()
    assert all(torch.equal(back[name], content[name]) for name in XTI)


@pytest.mark.parametrize(
    "content",
    [
        {"clip_g": torch.ones(3, 6), "clip_l": torch.zeros(2, 4)},
        {"a": torch.ones(2, 3), "b": torch.ones(2, 3)},
        {"a": torch.ones(2, 3, 4)},
        {"IN01": torch.ones(1, 4), "MID": torch.ones(2, 4)},
    ],
)
def test_what_is_no_textual_inversion_is_refused_with_what_it_holds(tmp_path, content):
    with pytest.raises(InputError, match=r"(?s)no textual inversion.*it holds"):
        read(tmp_path / "cat.safetensors", content)


def test_code_in_a_pickle_is_refused(tmp_path):
    class Bad:
        def __reduce__(self):
            return (print, ("run",))

    with pytest.raises(InputError):
        read(tmp_path / "cat.pt", {"emb_params": Bad()})


def test_a_model_of_other_widths_is_told_what_both_have():
    table = Table("te", "emb_params", nn.Embedding(5, 4))
    embedding_files.require_fit(Embedding({"emb_params": torch.ones(1, 4)}), [table], (), "x")
    with pytest.raises(InputError, match=r"(?s)emb_params of 6 numbers.*needs emb_params of 4"):
        embedding_files.require_fit(Embedding({"emb_params": torch.ones(1, 6)}), [table], (), "x")
    with pytest.raises(InputError, match=r"(?s)2 layers.*16 texts"):
        layered = Embedding({"emb_params": torch.ones(2, 4)}, ("IN01", "MID"))
        embedding_files.require_fit(layered, [table], XTI, "x")


def test_words_of_a_folder_are_the_names_of_its_files(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("cat.pt", "sub/cat.pt", "sub/bad-hands-5.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    found = embedding_files.in_folder(tmp_path)
    assert found == {"cat": tmp_path / "cat.pt", "bad-hands-5": tmp_path / "sub/bad-hands-5.safetensors"}


def test_rows_by_layer_move_only_those_that_have_layers():
    plain = Embedding({"emb_params": torch.zeros(2, 4)})
    layered = Embedding({"emb_params": torch.zeros(6, 4)}, ("IN01", "MID", "OUT03"))
    places = spans([plain, layered])
    assert places == [(0, 2, 1), (2, 2, 3)]
    assert rows_by_layer(places, 3)[:, :4].tolist() == [[0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 6, 7]]


def test_files_are_known_for_what_they_are(tmp_path):
    path = tmp_path / "word.safetensors"
    for content, family in (
        ({"emb_params": torch.ones(2, 768)}, "sd1"),
        ({"emb_params": torch.ones(2, 1024)}, "sd2"),
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, "sdxl"),
        ({name: torch.ones(2, 768) for name in XTI}, "sd1"),
    ):
        save_file(content, path)
        found = identify(path)
        assert (found.kind, found.family, found.details["vectors"]) == ("embedding", family, "2")
