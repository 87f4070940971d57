"""Captions made of a word, and guide pictures of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.data.loader import Loader
from backend.data.plan import build_plan
from backend.data.templates import object_captions, style_captions
from backend.errors import InputError
from backend.settings import Settings, check
from tests.data.data_kit import settings

WORD = {"training_method": "textual_inversion", "token_string": "mycat"}


@pytest.mark.parametrize("made", [object_captions("mycat"), style_captions("mycat")])
def test_sentences_differ_and_all_have_the_word_once(made: tuple[str, ...]) -> None:
    assert len(made) == len(set(made)) >= 20
    assert all(text.split().count("mycat") == 1 for text in made)


def test_made_captions_change_with_visits_by_key_and_class_pictures_keep_theirs(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures("train/2_ignored words", 3)
    pictures("reg/1_cat", 3, caption=None)
    wanted = settings(train_data_dir=str(tmp_path / "train"), reg_data_dir=str(tmp_path / "reg"), **WORD)
    plan = build_plan(wanted.replace(use_style_template=True, caption_prefix="not this"))
    first, again = ([b.captions for b in Loader(plan, seed=1, total_steps=1).epoch(1)] for _ in range(2))
    assert first == again
    texts = [text for captions in first for text in captions]
    made = [text for text in texts if "mycat" in text]
    assert len(made) == 6 and len(set(made)) > 2 and set(made) <= set(style_captions("mycat"))
    assert {text for text in texts if "mycat" not in text} == {"not this cat"}
    other = [
        text for b in Loader(plan, seed=2, total_steps=1).epoch(1) for text in b.captions if "mycat" in text
    ]
    assert sorted(other) != sorted(made)
    assert any("mycat" not in p.caption for d in build_plan(wanted).datasets for p in d.pictures)


def test_guide_pictures_of_folders_are_found_and_cut_with_their_pictures(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures("train/2_one", 2)
    pictures("train/1_two", 1, size=(64, 96))
    pictures("guides/2_one", 2, caption=None)
    pictures("guides/1_two", 1, size=(64, 96), caption=None)
    wanted = settings(
        train_data_dir=str(tmp_path / "train"), conditioning_data_dir=str(tmp_path / "guides"),
        training_method="lllite", flip_aug=True, random_crop=True, enable_bucket=True,
    )  # fmt: skip
    batches = list(Loader(build_plan(wanted), seed=1, total_steps=1).epoch(1))
    assert len(batches) == 5
    for batch in batches:
        assert batch.masks is None and batch.conditioning is not None
        assert torch.equal(batch.conditioning, batch.pixels), "guides are copies of the pictures here"
    with pytest.raises(InputError, match="without a conditioning picture"):
        build_plan(wanted.replace(conditioning_data_dir=str(tmp_path / "guides" / "1_two")))


def test_a_folder_of_pictures_takes_guides_from_one_folder(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures("train", 3)
    pictures("guides", 3, caption=None)
    plan = build_plan(settings(train_data_dir=str(tmp_path / "train"), training_method="lllite",
                               conditioning_data_dir=str(tmp_path / "guides")))  # fmt: skip
    names = {p.conditioning_path.name for d in plan.datasets for p in d.pictures if p.conditioning_path}
    assert names == {"img_00.png", "img_01.png", "img_02.png"}


def test_the_result_is_named_after_the_word_as_a_file_can_be() -> None:
    verdict = check(Settings.from_flat({**WORD, "token_string": "<my/cat>"}), complete=False)
    assert verdict.settings.saving.output_name == "mycat" and not verdict.errors
    assert any("named after the word" in note.what for note in verdict.notes)
    named = check(Settings.from_flat({**WORD, "output_name": "cat-v1"}), complete=False)
    assert named.settings.saving.output_name == "cat-v1"
