"""Captions on their way to the denoiser: emphasis, length, and that nothing is cut in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.train.texts import cut_captions
from tests.train.small import SmallModel, draw_pictures, run_small, same, settings_of, start


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = ["(sks:1.5) dog", "sks [dog]", "sks dog", "a (red) dog"]
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "1_sks dog", 4, captions).parent


def test_emphasis_changes_what_is_learnt_and_is_plain_text_without_the_option(
    pictures: Path, tmp_path: Path
) -> None:
    plain = run_small(pictures, tmp_path)
    weighed = run_small(pictures, tmp_path, weighted_captions=True)
    assert not same(plain.weights, weighed.weights)


def test_cached_text_has_the_same_emphasis(pictures: Path, tmp_path: Path) -> None:
    options = {"weighted_captions": True, "network_train_unet_only": True}
    live = run_small(pictures, tmp_path, **options)
    cached = run_small(pictures, tmp_path, **options, cache_text_encoder_outputs=True)
    for name, tensor in live.weights.items():
        torch.testing.assert_close(cached.weights[name], tensor)


def test_a_cache_on_disk_keeps_plain_and_weighed_text_apart(pictures: Path, tmp_path: Path) -> None:
    options = {"network_train_unet_only": True, "cache_text_encoder_outputs_to_disk": True}
    first = run_small(pictures, tmp_path, **options)
    weighed = run_small(pictures, tmp_path, **options, weighted_captions=True)
    again = run_small(pictures, tmp_path, **options)
    assert same(first.weights, again.weights) and not same(first.weights, weighed.weights)


def test_long_captions_are_named_before_training(tmp_path: Path) -> None:
    captions = ["sks dog", "x" * 76, "y" * 80, "(" + "z" * 75 + ")"]
    folder = draw_pictures(tmp_path / "p" / "1_sks dog", 4, captions).parent
    _, _, events, _ = start(folder, tmp_path, caption_dropout_rate=0.5)
    (note,) = [record["text"] for record in events.of("note") if "tokens" in record["text"]]
    assert "3 captions are longer than 75 tokens" in note and "1.png, 2.png, 3.png" in note
    assert "max_token_length 150" in note
    _, _, events, _ = start(folder, tmp_path, weighted_captions=True)
    assert any("2 captions are longer" in record["text"] for record in events.of("note"))
    _, _, events, _ = start(folder, tmp_path, max_token_length=150)
    assert not any("tokens" in record["text"] for record in events.of("note"))


def test_prefix_suffix_and_every_tag_count(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "p" / "1_a", 1, ["b" * 40]).parent
    long = {"caption_suffix": "c" * 40, "token_warmup_step": 5.0, "caption_tag_dropout_rate": 0.9}
    session, *_ = start(folder, tmp_path, **long)
    model = settings_of(folder, **long).model
    assert len(cut_captions(SmallModel(), session.loader.plan, model)) == 1


def test_a_family_that_reads_no_more_is_not_told_to(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "p" / "1_a", 1, ["b" * 80]).parent
    session, *_ = start(folder, tmp_path)
    model = SmallModel()
    model.family = "sd3"  # type: ignore[misc]
    (note,) = cut_captions(model, session.loader.plan, session.settings.model)
    assert "longer than 75 tokens" in note.what and "max_token_length" not in note.what
