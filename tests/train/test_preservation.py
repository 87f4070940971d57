"""The class is held to the base model while the subject is learnt; and the strength of the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.data.types import DatasetPlan
from backend.errors import InputError
from backend.settings import check
from backend.train.preservation import Preservation
from tests.train.small import Trained, draw_pictures, run_small, same, settings_of, start

HELD: dict[str, Any] = {"diff_output_preservation": True, "diff_output_preservation_class": "dog"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "1_sks dog").parent


def plan_of(folder: Path, tmp_path: Path) -> DatasetPlan:
    return start(folder, tmp_path)[0].loader.plan


@torch.no_grad()
def drift(done: Trained, prompt: str = "dog 1") -> float:
    """How far the trained model's word for a prompt is from the base model's."""
    session, noisy = done.session, torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
    times = torch.tensor([500])

    def said() -> torch.Tensor:
        text = session.model.encode_text(session.model.tokenize([prompt]))
        return session.model.predict(noisy, times, text)

    trained = said()
    with session.method.at_strength(0.0):  # type: ignore[attr-defined]
        return float((trained - said()).square().mean())


def test_the_class_drifts_less_and_the_subject_is_learnt_all_the_same(pictures: Path, tmp_path: Path) -> None:
    options = {"max_train_steps": 60, "learning_rate": 0.02, "network_dim": 8}
    free = run_small(pictures, tmp_path, **options)
    held = run_small(pictures, tmp_path, **options, **HELD, diff_output_preservation_multiplier=5.0)
    assert drift(held) < drift(free) / 2
    assert drift(held, "sks dog 1") > 1.2 * drift(held)


def test_with_a_multiplier_of_nothing_it_is_plain_training(pictures: Path, tmp_path: Path) -> None:
    options = {"network_dropout": 0.3}
    plain = run_small(pictures, tmp_path, **options)
    without = run_small(pictures, tmp_path, **options, **HELD, diff_output_preservation_multiplier=0.0)
    held = run_small(pictures, tmp_path, **options, **HELD)
    assert same(plain.weights, without.weights) and not same(plain.weights, held.weights)


def test_cached_and_live_text_hold_alike(pictures: Path, tmp_path: Path) -> None:
    options = {**HELD, "network_train_unet_only": True, "shuffle_caption": True}
    live = run_small(pictures, tmp_path, **options, caption_variants=3)
    cached = run_small(pictures, tmp_path, **options, caption_variants=3, cache_text_encoder_outputs=True)
    for name, tensor in live.weights.items():
        torch.testing.assert_close(cached.weights[name], tensor)


def test_captions_with_the_class_in_the_subjects_place(pictures: Path, tmp_path: Path) -> None:
    picture = plan_of(pictures, tmp_path).datasets[0].pictures[0]
    by_folder, by_word = Preservation("dog"), Preservation("a dog", trigger="sks")
    assert by_folder.class_caption(picture, "a photo of SKS dog, sks dog") == "a photo of dog, dog"
    assert by_word.class_caption(picture, r"sks \1 runs") == r"a dog \1 runs"
    assert by_word.class_caption(picture, "msks, sksy") is None
    regular = replace(picture, subset=replace(picture.subset, is_reg=True))
    assert by_folder.class_caption(regular, "sks dog") is None
    found = by_folder.of_batch([picture, picture], ["sks dog runs", "a cat"])
    assert found is not None and found.texts == ["dog runs", "a cat"] and found.shares == [1.0, 0.0]
    assert by_folder.of_batch([picture], ["a cat"]) is None


def test_pictures_without_the_subject_are_learnt_freely(tmp_path: Path) -> None:
    folder = draw_pictures(
        tmp_path / "p" / "1_sks dog", captions=["sks dog", "a cat", "a cat", "a cat"], count=4
    )
    session, *_ = start(folder.parent, tmp_path, **HELD, train_batch_size=4)
    (batch,) = session.loader.epoch(1)
    inputs = session.inputs(batch)
    assert inputs.class_text is not None
    held = [text for text, share in zip(batch.captions, inputs.class_text.shares, strict=True) if share]
    assert held == ["sks dog"]
    for parameter in session.method.trainable.parameters():
        torch.nn.init.normal_(parameter)
    more = session.module(inputs) - session.module(replace(inputs, class_text=None))
    assert [float(value) > 0 for value in more.detach()] == [text == "sks dog" for text in batch.captions]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"diff_output_preservation_trigger": "zwx"}, "no caption has the words of the subject"),
        ({"diff_output_preservation_class": None}, "needs to know the class"),
    ],
)
def test_what_cannot_be_held_is_refused(
    pictures: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    verdict = check(settings_of(pictures, **{**HELD, **options}), complete=False)
    if verdict.errors:
        assert words in verdict.errors[0].what
        return
    with pytest.raises(InputError, match=words):
        start(pictures, tmp_path, **{**HELD, **options})


def test_a_method_without_a_base_model_is_refused(pictures: Path, tmp_path: Path) -> None:
    loss = settings_of(pictures, **HELD).loss
    with pytest.raises(InputError, match="needs a network"):
        Preservation.of(loss, plan_of(pictures, tmp_path), object())  # type: ignore[arg-type]


def dataset_file(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "dataset.toml"
    path.write_text(text, encoding="utf-8")
    return {"dataset_config": str(path)}


def test_pictures_of_a_marked_subset_are_held_to_the_base_model(tmp_path: Path) -> None:
    """Their target is what the base model says; so with only these there is nothing to learn."""
    draw_pictures(tmp_path / "a")
    text = f"""[[datasets]]
[[datasets.subsets]]
image_dir = '{tmp_path / "a"}'
caption_extension = ".txt"
custom_attributes = {{ diff_output_preservation = true }}
"""
    done = run_small(tmp_path, tmp_path, **dataset_file(tmp_path, text))
    assert [record["loss"] for record in done.events.of("step")] == [0.0] * 6
    assert drift(done) == 0.0
    draw_pictures(tmp_path / "b", count=2)
    text += f"[[datasets.subsets]]\nimage_dir = '{tmp_path / 'b'}'\ncaption_extension = \".txt\"\n"
    mixed = run_small(tmp_path, tmp_path, **dataset_file(tmp_path, text), max_train_steps=12)
    assert drift(mixed) > 0


def test_the_strength_of_a_dataset_acts_forward_and_backward(tmp_path: Path) -> None:
    """Twice the strength is twice the alpha, to the bit, with recomputation in the backward pass too."""
    draw_pictures(tmp_path / "a")
    text = f"[[datasets]]\nnetwork_multiplier = {{}}\n[[datasets.subsets]]\nimage_dir = '{tmp_path / 'a'}'\n"

    def trained(strength: float, alpha: float) -> Trained:
        source = dataset_file(tmp_path, text.format(strength) + 'caption_extension = ".txt"\n')
        return run_small(tmp_path, tmp_path, **source, network_alpha=alpha, gradient_checkpointing=True)

    twice, plain, alpha = trained(2.0, 2.0), trained(1.0, 2.0), trained(1.0, 4.0)
    assert twice.session.method.network.strength == 1.0  # type: ignore[attr-defined]
    own = {name: tensor for name, tensor in twice.weights.items() if "alpha" not in name}
    assert all(torch.equal(tensor, alpha.weights[name]) for name, tensor in own.items())
    assert any(not torch.equal(tensor, plain.weights[name]) for name, tensor in own.items())
