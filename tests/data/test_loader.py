"""Batches: order, repeats, keys, masks; the same for any threads, any start, cached or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backend.data.cache import LatentCache, TextCache, open_store
from backend.data.facts import FileFacts
from backend.data.fill import caption_texts, default_variants, fill_latents, fill_texts
from backend.data.loader import Batch, Encoded, Loader
from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.errors import RunFault
from tests.data.data_kit import add_picture, plan_of, settings

SIZES = ((96, 64), (64, 96), (64, 64))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(7):
        add_picture(tmp_path / "set" / "3_sks", f"p{i}.png", SIZES[i % 3], "a, b, c, d, e")
    return tmp_path / "set"


OPTIONS = {
    "enable_bucket": True, "resolution": "96", "min_bucket_reso": 32, "bucket_reso_steps": 32, "train_batch_size": 4,
    "flip_aug": True, "shuffle_caption": True,
}  # fmt: skip


def loader_of(plan: DatasetPlan, **options: object) -> Loader:
    return Loader(plan, **{"seed": 5, "total_steps": 100, **options})  # type: ignore[arg-type]


def same(first: list[Batch], second: list[Batch]) -> bool:
    def tensors(batch: Batch) -> list[Tensor]:
        given = (batch.pixels, batch.latents, batch.masks, *(batch.text or {}).values())
        return [t for t in given if t is not None]

    return len(first) == len(second) and all(
        (a.keys, a.captions, a.flips, a.index) == (b.keys, b.captions, b.flips, b.index)
        and all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
        for a, b in zip(first, second, strict=True)
    )


def encode(pixels: Tensor, noise: Tensor) -> Tensor:
    """A stand-in for a VAE: depends on every pixel and on the noise."""
    small = torch.nn.functional.avg_pool2d(pixels, 8)
    return torch.cat([small, small.mean(1, keepdim=True)], 1) + 0.1 * noise


def test_each_picture_comes_as_often_as_it_repeats(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    loader = loader_of(plan)
    batches = list(loader.epoch(1))
    assert len(batches) == plan.batches_per_epoch()
    seen = Counter(key for batch in batches for key in batch.keys)
    assert seen == Counter({(p.id, visit): 1 for p in plan.datasets[0].pictures for visit in range(3)})
    for batch in batches:
        assert len({p.geometry.bucket for p in batch.pictures}) == 1
        width, height = batch.pictures[0].geometry.bucket
        assert batch.pixels is not None and batch.pixels.shape == (len(batch.keys), 3, height, width)
        assert batch.pixels.dtype == torch.float32 and batch.pixels.abs().max() <= 1
    later = {visit for batch in loader.epoch(2) for _, visit in batch.keys}
    assert later == {3, 4, 5}


def test_epochs_and_seeds_have_orders_of_their_own(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)

    def names(seed: int, epoch: int) -> list[str]:
        return [v.picture.id for batch in loader_of(plan, seed=seed).order(epoch) for v in batch]

    assert names(5, 1) == names(5, 1)
    assert len({tuple(names(seed, epoch)) for seed in (5, 6) for epoch in (1, 2)}) == 4


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_start_do_not_matter(folder: Path, threads: int) -> None:
    plan = plan_of(folder, **OPTIONS)
    plain = list(loader_of(plan).epoch(2))
    assert same(plain, list(loader_of(plan, threads=threads).epoch(2)))
    assert same(plain[3:], list(loader_of(plan, threads=threads).epoch(2, start_batch=3)))


def test_batches_before_the_start_are_not_loaded(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    order = loader_of(plan).order(1)
    later = {v.picture.id for batch in order[-1:] for v in batch}
    for picture in plan.datasets[0].pictures:
        if picture.id not in later:
            picture.path.unlink()
    assert len(list(loader_of(plan, threads=2).epoch(1, start_batch=len(order) - 1))) == 1


def test_flips_are_drawn_by_visit_and_mirror_the_pixels(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    by_key = {
        key: (flip, pixels)
        for epoch in (1, 2, 3)
        for batch in loader_of(plan).epoch(epoch)
        for key, flip, pixels in zip(batch.keys, batch.flips, batch.pixels, strict=True)  # type: ignore[arg-type]
    }
    for picture in plan.datasets[0].pictures:
        seen = [by_key[picture.id, visit] for visit in range(9)]
        plain = [pixels for flip, pixels in seen if not flip]
        mirrored = [pixels for flip, pixels in seen if flip]
        if plain and mirrored:
            assert torch.equal(plain[0].flip(-1), mirrored[0])
    share = np.mean([flip for flip, _ in by_key.values()])
    assert 0.25 < share < 0.75


@pytest.mark.parametrize("disk", [False, True])
def test_cached_latents_are_those_of_live_encoding(folder: Path, disk: bool) -> None:
    plan = plan_of(folder, **OPTIONS)
    cache = LatentCache(open_store("latents", "vae-1", disk=disk), "vae-1")
    told: list[tuple[int, int]] = []
    filled = fill_latents(plan, cache, encode, 2, lambda done, total: told.append((done, total)))
    assert (filled.total, filled.computed, filled.damaged) == (14, 14, 0)
    assert told[0] == (0, 14) and told[-1] == (14, 14)
    live_loader = loader_of(plan)
    cached = loader_of(plan, encoded=Encoded(latents=cache), threads=2)
    for live, ready in zip(live_loader.epoch(1), cached.epoch(1), strict=True):
        assert live.pixels is not None and ready.latents is not None and ready.pixels is None
        wanted = encode(live.pixels, live_loader.posterior_noise(live, 4))
        torch.testing.assert_close(ready.latents, wanted, rtol=0, atol=1e-6)
        assert live.captions == ready.captions and live.keys == ready.keys


def test_only_what_changed_is_encoded_again(folder: Path) -> None:
    def fill(vae: str = "vae-1", where: Path = folder, **options: object) -> tuple[int, int]:
        plan = plan_of(where, **{**OPTIONS, "flip_aug": False, **options})
        done = fill_latents(plan, LatentCache(open_store("latents", vae, disk=True), vae), encode)
        return done.computed, done.damaged

    assert fill() == (7, 0)
    assert fill() == (0, 0)
    add_picture(folder / "3_sks", "p0.png", (96, 80))
    assert fill() == (1, 0)
    assert fill(vae="vae-2") == (7, 0)
    assert fill(resolution="128") == (7, 0)
    assert fill(flip_aug=True) == (7, 0)
    moved = folder.rename(folder.with_name("moved"))
    assert fill(where=moved) == (0, 0)


def test_damaged_entries_are_computed_again_and_counted(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    store = open_store("latents", "v", disk=True)
    fill_latents(plan, LatentCache(store, "v"), encode)
    for pack in store.folder.iterdir():  # type: ignore[attr-defined]
        data = bytearray(pack.read_bytes())
        data[-3] ^= 255
        pack.write_bytes(data)
    again = LatentCache(open_store("latents", "v", disk=True), "v")
    filled = fill_latents(plan, again, encode)
    assert filled.damaged == filled.computed == 1
    assert (
        len(list(loader_of(plan, encoded=Encoded(latents=again), threads=2).epoch(1)))
        == plan.batches_per_epoch()
    )


def test_a_picture_removed_during_a_run_does_not_matter_when_cached(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    cache = LatentCache(open_store("latents", "v", disk=False), "v")
    fill_latents(plan, cache, encode)
    plan.datasets[0].pictures[0].path.unlink()
    assert len(list(loader_of(plan, encoded=Encoded(latents=cache)).epoch(1))) == plan.batches_per_epoch()


@pytest.mark.parametrize("threads", [0, 2])
def test_a_picture_that_fails_later_is_named(folder: Path, threads: int) -> None:
    plan = plan_of(folder, **OPTIONS)
    path = plan.datasets[0].pictures[2].path
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunFault, match=rf"{path.name} is cut off"):
        list(loader_of(plan, threads=threads).epoch(1))
    path.unlink()
    with pytest.raises(RunFault, match=rf"{path.name} is no longer there"):
        list(loader_of(plan, threads=threads).epoch(1))


def test_a_picture_that_is_gone_before_it_is_encoded_is_named(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    path = plan.datasets[0].pictures[2].path
    path.unlink()
    cache = LatentCache(open_store("latents", "v", disk=False), "v", facts=FileFacts(None))
    with pytest.raises(RunFault, match=rf"{path.name} is no longer there") as caught:
        fill_latents(plan, cache, encode)
    assert caught.value.problems[0].where == str(path.parent) and caught.value.problems[0].next


def test_leaving_an_epoch_early_ends_its_threads(folder: Path) -> None:
    import threading

    epoch = loader_of(plan_of(folder, **OPTIONS), threads=3).epoch(1)
    next(epoch)
    epoch.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_latents_that_are_not_finite_stop_with_names(folder: Path) -> None:
    plan = plan_of(folder, **OPTIONS)
    cache = LatentCache(open_store("latents", "v", disk=False), "v")
    with pytest.raises(RunFault, match="not finite for p") as caught:
        fill_latents(plan, cache, lambda pixels, noise: encode(pixels, noise) / 0)
    assert caught.value.problems[0].key == "no_half_vae"


TEXT_OPTIONS = [
    {"shuffle_caption": True},
    {"caption_tag_dropout_rate": 0.5, "caption_dropout_rate": 0.3},
    {"caption_dropout_every_n_epochs": 2},
    {"token_warmup_step": 0.5, "shuffle_caption": True, "keep_tokens": 1},
    {"keep_tokens": 1},
]


@pytest.mark.parametrize("options", TEXT_OPTIONS, ids=str)
def test_every_text_that_can_be_asked_for_is_encoded(folder: Path, options: dict[str, object]) -> None:
    plan = plan_of(folder, **{**OPTIONS, "shuffle_caption": False, **options})
    variants = default_variants(plan)
    assert variants == (1 if options == {"keep_tokens": 1} else 8)
    cache = TextCache(open_store("texts", "te", disk=False), "te")
    texts = caption_texts(plan, 5, variants, 40)
    filled = fill_texts(
        texts, cache, lambda batch: {"hidden": torch.tensor([[float(len(t))] for t in batch])}, 3
    )
    assert filled.total == filled.computed == len(texts)
    loader = loader_of(plan, total_steps=40, encoded=Encoded(texts=cache, caption_variants=variants))
    steps = 0
    for epoch in range(1, 8):
        for batch in loader.epoch(epoch, step=steps):
            steps += 1
            assert batch.text is not None
            assert batch.text["hidden"].tolist() == [[float(len(text))] for text in batch.captions]
    if "caption_dropout_every_n_epochs" in options:
        assert {text for batch in loader.epoch(2) for text in batch.captions} == {""}
        assert "" not in {text for batch in loader.epoch(3) for text in batch.captions}


def test_text_keys_depend_on_what_decides_the_encoding() -> None:
    store = open_store("texts", "te", disk=False)
    caches = [
        TextCache(store, "te"), TextCache(store, "other"), TextCache(store, "te", clip_skip=2),
        TextCache(store, "te", max_token_length=150),
    ]  # fmt: skip
    assert len({cache.key("a") for cache in caches}) == 4
    assert caches[0].key("a") != caches[0].key("b")


def test_steps_advance_with_accumulation(folder: Path) -> None:
    plan = plan_of(
        folder, **{**OPTIONS, "shuffle_caption": False, "token_warmup_step": 3, "train_batch_size": 1}
    )
    lengths = [
        len(batch.captions[0].split(", "))
        for batch in loader_of(plan, accumulation=2).epoch(1, start_batch=2, step=1)
    ]
    # 5 tags, from 1 at step 0 to all at step 3: steps 1, 1, 2, 2, 3 ...
    assert lengths[:6] == [2, 2, 3, 3, 5, 5]


def test_alpha_is_a_mask_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    image.save(folder / "a.png")
    add_picture(folder, "b.png", (64, 64))
    options = {"class_tokens": "x", "train_batch_size": 2}
    (plain,) = loader_of(plan_of(folder, **options)).epoch(1)
    assert plain.masks is None
    (batch,) = loader_of(plan_of(folder, alpha_mask=True, **options)).epoch(1)
    assert batch.masks is not None and batch.masks.shape == (2, 1, 64, 64)
    by_name = dict(zip([p.path.name for p in batch.pictures], batch.masks, strict=True))
    assert by_name["a.png"][0, :, :32].max() == 0 and by_name["a.png"][0, :, 32:].min() == 1
    assert by_name["b.png"].min() == 1


def test_mask_files_are_cut_and_mirrored_with_their_picture(tmp_path: Path) -> None:
    add_picture(tmp_path / "set", "a.png", (96, 64))
    (tmp_path / "masks").mkdir()
    mask = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    config = tmp_path / "d.toml"
    config.write_text(
        '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "set"\nconditioning_data_dir = "masks"\nflip_aug = true\nnum_repeats = 12\n'
    )
    plan = build_plan(settings(dataset_config=str(config), masked_loss=True))
    expected = torch.from_numpy(mask[:, 16:80].copy()).float() / 255
    seen = set()
    for batch in loader_of(plan).epoch(1):
        assert batch.masks is not None
        (flip,) = batch.flips
        seen.add(flip)
        assert torch.equal(batch.masks[0, 0], expected.flip(-1) if flip else expected)
    assert seen == {False, True}


def test_size_conditioning_is_the_cut_that_happened(tmp_path: Path) -> None:
    add_picture(tmp_path / "set", "a.png", (101, 64))
    plan = plan_of(tmp_path / "set", flip_aug=True, dataset_repeats=8)
    for batch in loader_of(plan).epoch(1):
        assert batch.sizes.original.tolist() == [[64, 101]]
        assert batch.sizes.target.tolist() == [[64, 64]]
        assert batch.sizes.crop.tolist() == [[0, 19 if batch.flips[0] else 18]]
        assert batch.sizes.crop.dtype == torch.int64


def test_loss_weights_mark_regularisation(tmp_path: Path) -> None:
    add_picture(tmp_path / "t" / "1_sks dog", "a.png")
    add_picture(tmp_path / "r" / "1_dog", "b.png")
    plan = plan_of(
        tmp_path / "t", reg_data_dir=str(tmp_path / "r"), prior_loss_weight=0.5, train_batch_size=2
    )
    (batch,) = loader_of(plan).epoch(1)
    weights = dict(zip([p.path.name for p in batch.pictures], batch.loss_weights.tolist(), strict=True))
    assert weights == {"a.png": 1.0, "b.png": 0.5}


def test_facts_survive_and_notice_changes(pictures: Callable[..., Path], tmp_path: Path) -> None:
    path = pictures() / "img_00.png"
    where = tmp_path / "cache" / "files.tsv"
    facts = FileFacts(where)
    before = facts.content(path)
    facts.save()
    again = FileFacts(where)
    assert again.content(path) == before and not again.decodes(path)
    add_picture(path.parent, path.name, (50, 50))
    assert again.content(path) != before
    damaged = tmp_path / "facts.tsv"
    damaged.write_bytes(b"\xff\xfe\x00garbage\n\t\t\n" + bytes(100))
    assert FileFacts(damaged).content(path) == again.content(path)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_unforeseen_failure_names_its_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    from backend.data import images

    def fail(*args: object) -> None:
        raise ArithmeticError("unforeseen")

    plan = plan_of(folder, **OPTIONS)
    monkeypatch.setattr(images, "fit", fail)
    with pytest.raises(RunFault, match=r"p\d.png could not be loaded .*unforeseen"):
        list(loader_of(plan, threads=threads).epoch(1))
