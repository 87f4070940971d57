"""The captioner: a small BLIP (Li et al. 2022, arXiv 2201.12086) that puts pictures of the world into words.

A transformer from nothing learns slowly that neighbouring patches belong together. So its first weights
tell it: patches are embedded as their lowest frequencies, and attention heads start out looking at one
neighbour of a patch, as a convolution would (Cordonnier et al. 2020, arXiv 1911.03584). And while it learns
to write, a head that is thrown away later has it name the attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration

from backend import keyed
from backend.demo.make.attributes import CLASSES_OF_TWO
from backend.demo.make.course import Course, Moment, Pace
from backend.demo.make.pictures import pixels_of
from backend.demo.make.tagger import RETURNED, examples, worn
from backend.demo.world import SIZE, Scene, every_word
from backend.families.parts.vae import Vae
from backend.wholefile import replacing, write_text

PATCH = 16
WIDTH = 128
LAYERS = 4
HEADS = 8
COUNT = 40000
"""Pictures that it learns from in one call; in the next call from others. It has room to learn them
by heart: shown the same 12,000 again and again, it names 99 of 100 shapes in those and 80 in others."""
EASY_UNTIL = 0.4
"""Share of the first call's time with one big thing a picture. Later calls leave it out: what was learnt
of the other pictures would be forgotten."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
_PLACE = 16
"""Features of a patch that say where it is."""
_LOOKS = ((0, -1), (0, 1), (-1, 0), (1, 0))
"""Where the first four heads look; the others start out even."""
_REACH = (1, 1, 2, 3)
"""How far they look, layer by layer."""
_SHARPNESS = (0.8, 1.1, 1.4, 1.7)
"""How clearly, layer by layer: what else is known of a patch grows beside its place."""
_BATCH = 32
_HARD = (10, 6)
"""Of a batch, pictures with two things and with a small one: too rare to be learnt from chance alone."""
_SHIFT = 6
"""Pictures are moved by up to so many pixels."""


def vocabulary() -> list[str]:
    """Special tokens, then every word that captions are made of."""
    return [*SPECIAL, *every_word()]


def config() -> BlipConfig:
    """Dimensions of the captioner."""
    number = {token: index for index, token in enumerate(SPECIAL)}
    vision = {
        "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "image_size": SIZE, "patch_size": PATCH,
    }  # fmt: skip
    text = {
        "vocab_size": len(vocabulary()), "hidden_size": WIDTH, "encoder_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "bos_token_id": number["[DEC]"], "eos_token_id": number["[SEP]"], "sep_token_id": number["[SEP]"],
        "pad_token_id": number["[PAD]"],
    }  # fmt: skip
    return BlipConfig(vision_config=vision, text_config=text, projection_dim=32, image_text_hidden_size=32)


class Learner(nn.Module):
    """The BLIP, and the head that tells the attributes while it learns."""

    def __init__(self, shape: BlipConfig) -> None:
        super().__init__()
        self.blip = BlipForConditionalGeneration(shape)
        self.head = nn.Linear(2 * WIDTH, sum(map(len, CLASSES_OF_TWO.values())))
        _begin(self.blip)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss of the captions (``ids``: B, words; padded with 0) and logits of the attributes."""
        seen = self.blip.vision_model(pixel_values=pixels).last_hidden_state
        written = self.blip.text_decoder(
            input_ids=ids, attention_mask=(ids != 0).long(), encoder_hidden_states=seen,
        )  # fmt: skip
        wanted = ids[:, 1:].flatten()
        logits = written.logits[:, :-1].flatten(0, 1).float()
        loss = F.cross_entropy(logits, wanted, ignore_index=0)
        pooled = torch.cat([seen[:, 0], seen[:, 1:].mean(dim=1)], dim=1).float()
        return loss, self.head(pooled).split(list(map(len, CLASSES_OF_TWO.values())), dim=-1)


@torch.no_grad()
def _begin(blip: BlipForConditionalGeneration) -> None:
    """First weights: of a size that carries signals through, and vision that looks at neighbours."""
    for name, module in blip.named_modules():
        if isinstance(module, nn.Linear) and "predictions.decoder" not in name:
            ends = name.endswith(("projection", "fc2", "output.dense"))
            module.weight.normal_(std=(0.5 if ends else 1.0) / math.sqrt(module.in_features))
            module.bias.zero_()
    eyes = blip.vision_model
    _see_frequencies(eyes.embeddings.patch_embedding)
    eyes.embeddings.class_embedding.normal_(std=0.1)
    eyes.embeddings.position_embedding.zero_()
    eyes.embeddings.position_embedding[0, 1:, :_PLACE] = _places(SIZE // PATCH)
    for layer, reach, sharpness in zip(cast(Any, eyes.encoder.layers), _REACH, _SHARPNESS, strict=False):
        _look_at_neighbours(layer.self_attn, reach, sharpness)
        layer.self_attn.projection.weight[:_PLACE] = 0
        layer.mlp.fc2.weight[:_PLACE] = 0


def _see_frequencies(embedding: nn.Conv2d) -> None:
    """Behind the place, the lowest cosine frequencies of brightness and of two differences of colours."""
    side = embedding.kernel_size[0]
    steps = (torch.arange(side) + 0.5) * math.pi / side
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda pair: (sum(pair), pair))
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    waves = [(torch.outer(torch.cos(u * steps), torch.cos(v * steps)), 3 * (1 + u + v)) for u, v in order]
    found = [wave * colour.view(3, 1, 1) * gain / side**2 for wave, gain in waves for colour in colours]
    count = embedding.out_channels - _PLACE
    embedding.weight.zero_()
    embedding.weight[_PLACE:] = torch.stack(found[:count])
    assert embedding.bias is not None
    embedding.bias.zero_()


def _frequencies() -> Tensor:
    return torch.tensor([1.0, 3.0, 7.0, 13.0]) * math.pi / 16


def _places(side: int) -> Tensor:
    """(side * side, _PLACE): cosines and sines of the row and of the column."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.flatten()[:, None] * _frequencies() for axis in (row, column)]
    return torch.cat([part for angle in angles for part in (angle.cos(), angle.sin())], dim=1)


def _look_at_neighbours(attention: Any, reach: int, sharpness: float) -> None:
    """Queries are the own place moved on, keys the place: the first heads look ``reach`` patches aside."""
    width, size = attention.embed_dim, attention.head_dim
    weight = attention.qkv.weight
    for head in range(attention.num_heads):
        rows = slice(head * size, (head + 1) * size)
        query, key = weight[:width][rows], weight[width : 2 * width][rows]
        if head >= len(_LOOKS) or size < _PLACE:
            query.mul_(0.3)
            key.mul_(0.3)
            continue
        query.zero_()
        key.zero_()
        down, right = (reach * step for step in _LOOKS[head])
        query[:_PLACE, :_PLACE] = sharpness * torch.block_diag(_turn(down), _turn(right))
        key[:_PLACE, :_PLACE] = sharpness * torch.eye(_PLACE)


def _turn(steps: int) -> Tensor:
    """Cosines and sines of places -> those of places ``steps`` further."""
    angle = _frequencies() * steps
    cosine, sine = torch.diag(angle.cos()), torch.diag(angle.sin())
    return torch.cat([torch.cat([cosine, -sine], dim=1), torch.cat([sine, cosine], dim=1)])


def ids_of(captions: Sequence[str]) -> Tensor:
    """(B, words): [DEC], the words, [SEP], padding."""
    table = _numbers()
    rows = [[table["[DEC]"], *(table[word] for word in text.split()), table["[SEP]"]] for text in captions]
    longest = max(map(len, rows))
    return torch.tensor([row + [table["[PAD]"]] * (longest - len(row)) for row in rows])


@cache
def _numbers() -> dict[str, int]:
    return {word: index for index, word in enumerate(vocabulary())}


def moved(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """All pictures of a batch shifted by the same few pixels, their edges drawn out."""
    top, left = (int(torch.randint(2 * _SHIFT + 1, (), generator=generator)) for _ in range(2))
    wide = F.pad(pixels, (_SHIFT,) * 4, mode="replicate")
    return wide[:, :, top : top + pixels.shape[2], left : left + pixels.shape[3]]


def train(work: Path, pace: Pace, coder: Vae, seed: int, count: int = COUNT) -> Course:
    """Train a captioner, half of the time on worn pictures, at first on one big thing each."""
    torch.manual_seed(seed)
    learner = Learner(config())
    course = Course(work, "captioner", learner, pace)
    easy_until = EASY_UNTIL if course.step == 0 else 0.0
    seen = course.step * _BATCH
    shown = range(seen, seen + count)
    whole = int(count * (1 - RETURNED))
    first, last = examples(seed, shown[:whole]), examples(seed, shown[whole:], coder)
    pictures, wanted = np.concatenate([first[0], last[0]]), torch.cat([first[1], last[1]])
    scenes = [*first[2], *last[2]]
    captions = [scene.caption() for scene in scenes]
    easy, *hard = (_numbers_of(scenes, is_one) for is_one in (_easy, _two, _small))

    def loss_of(moment: Moment) -> Tensor:
        generator = keyed.generator(seed, "captioner", moment.step)
        if moment.share < easy_until:
            chosen = _some(easy, _BATCH, generator)
        else:
            rest = _some(torch.arange(count), _BATCH - sum(_HARD), generator)
            chosen = torch.cat([*map(_some, hard, _HARD, [generator] * len(hard)), rest])
        pixels = moved(pixels_of(pictures[chosen.numpy()]), generator)
        if moment.step % 2:
            pixels = worn(pixels, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, named = learner(pixels, ids_of([captions[int(index)] for index in chosen]))
        losses = [F.cross_entropy(part.float(), wanted[chosen, column]) for column, part in enumerate(named)]
        shape = losses[list(CLASSES_OF_TWO).index("shape")]  # what is learnt last by far
        return loss + (torch.stack(losses).mean() + 0.3 * shape) * (1.0 - 0.9 * moment.share)

    course.run(loss_of)
    return course


def _numbers_of(scenes: Sequence[Scene], is_one: Callable[[Scene], bool]) -> Tensor:
    return torch.tensor([index for index, scene in enumerate(scenes) if is_one(scene)] or [0])


def _some(numbers: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the numbers, drawn with return."""
    return numbers[torch.randint(len(numbers), (count,), generator=generator)]


def _easy(scene: Scene) -> bool:
    """One big thing: its shape is learnt first there."""
    return len(scene.things) == 1 and scene.things[0].size == "big"


def _two(scene: Scene) -> bool:
    return len(scene.things) == 2


def _small(scene: Scene) -> bool:
    return len(scene.things) == 1 and scene.things[0].size == "small"


def write(learner: Learner, folder: Path, made: Mapping[str, object]) -> int:
    """Write weights (fp16), configuration, tokenizer and preprocessor; returns their size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    blip = learner.blip
    own = set(dict(blip.named_parameters())) | {name for name, _ in blip.named_buffers()}
    state = {name: value.half().contiguous() for name, value in blip.state_dict().items()
             if name in own and value.is_floating_point()}  # fmt: skip
    with replacing(folder / "model.safetensors") as new:
        new.file.write(safetensors_bytes(state, {"format": "pt", "atelier.made": json.dumps(made)}))
    shape = {**json.loads(blip.config.to_json_string(use_diff=True)), "architectures": [type(blip).__name__],
             "dtype": "float16"}  # fmt: skip
    _json(folder / "config.json", shape)
    _json(folder / "preprocessor_config.json", _PREPROCESSOR)
    _json(folder / "tokenizer_config.json", _TOKENIZER)
    write_text(folder / "vocab.txt", "".join(f"{word}\n" for word in vocabulary()))
    return sum(path.stat().st_size for path in folder.iterdir())


_PREPROCESSOR = {
    "image_processor_type": "BlipImageProcessor", "processor_class": "BlipProcessor",
    "do_convert_rgb": True, "do_resize": True, "size": {"height": SIZE, "width": SIZE}, "resample": 3,
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip
_TOKENIZER = {
    "tokenizer_class": "BertTokenizer", "processor_class": "BlipProcessor", "do_lower_case": True,
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
    "mask_token": "[MASK]", "bos_token": "[DEC]", "model_max_length": 48,
}  # fmt: skip


def _json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
