"""How written values are read, and what is said of wrong ones."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backend.settings import declarations
from backend.settings.convert import convert


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("network_alpha", 16, 16.0),
        ("network_dim", "16", 16),
        ("network_dim", 16.0, 16),
        ("network_dim", "", None),
        ("seed", str(2**63 - 1), 2**63 - 1),
        ("cache_latents", "true", True),
        ("cache_latents", "False", False),
        ("optimizer_type", "adafactor", "AdaFactor"),
        ("optimizer_type", "", "AdamW"),
        ("lr_scheduler", "Cosine", "cosine"),
        ("max_token_length", "150", 150),
        ("resolution", "512", (512, 512)),
        ("resolution", "512, 768", (512, 768)),
        ("resolution", "512x768", (512, 768)),
        ("resolution", 512, (512, 512)),
        ("resolution", [512], (512, 512)),
        ("resolution", [512, 768.0], (512, 768)),
        ("resolution", "", None),
        ("lr_warmup_steps", "10%", 0.1),
        ("lr_warmup_steps", "0", 0),
        ("lr_warmup_steps", "1.0", 1),
        ("lr_warmup_steps", "0.1", 0.1),
        ("lr_warmup_steps", 100, 100),
        ("optimizer_args", "weight_decay=0.1 betas=.9,.99", ("weight_decay=0.1", "betas=.9,.99")),
        ("text_encoder_lr", [1e-5], 1e-5),
        ("text_encoder_lr", ["1e-5", "1e-5"], 1e-5),
        ("text_encoder_lr", [], None),
        ("train_data_dir", '  "C:\\My Pictures" ', "C:\\My Pictures"),
        ("output_name", "  mine ", "mine"),
        ("output_dir", "", None),
        ("caption_separator", ", ", ", "),
        ("keep_tokens_separator", "", ""),
    ],
)
def test_reading(key: str, written: Any, value: Any) -> None:
    found = convert(declarations()[key], written)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "written", "said"),
    [
        ("max_train_steps", "many", "expected a whole number, got text ('many')"),
        ("seed", 1.5, "expected a whole number, got 1.5"),
        ("seed", "1.5", "expected a whole number, got text ('1.5')"),
        ("train_batch_size", True, "expected a whole number, got true"),
        ("train_batch_size", 0, "0 is out of range; allowed: 1 to 4096"),
        ("train_batch_size", None, "expected a whole number, got nothing"),
        ("network_dim", 0, "0 is out of range; allowed: 1 to 1024"),
        ("max_train_steps", 10**12, "1000000000000 is out of range; allowed: 1 to 100000000"),
        ("learning_rate", False, "expected a number, got false"),
        ("learning_rate", -1e-4, "-0.0001 is out of range; allowed: 0 to 100"),
        ("learning_rate", 1e3, "1000.0 is out of range; allowed: 0 to 100"),
        ("learning_rate", math.nan, "nan is no usable number; allowed: 0 to 100"),
        ("learning_rate", "inf", "inf is no usable number; allowed: 0 to 100"),
        ("learning_rate", "9" * 9999, "inf is no usable number; allowed: 0 to 100"),
        ("learning_rate", [1e-4], "expected a number, got a list"),
        (
            "text_encoder_lr",
            [1e-4, 1e-5],
            "expected one value for the one text encoder, got 2 different ones",
        ),
        ("network_dropout", 1, "1.0 is out of range; allowed: 0 to below 1"),
        ("min_snr_gamma", 0, "0.0 is out of range; allowed: above 0 to 1000"),
        ("cache_latents", 1, "expected true or false, got the whole number 1"),
        ("cache_latents", "maybe", "expected true or false, got text ('maybe')"),
        ("output_name", 5, "expected text, got the whole number 5"),
        ("output_name", {"a": 1}, "expected text, got a table"),
        ("mixed_precision", "fp8", "text ('fp8') is not one of: no, fp16, bf16"),
        ("max_token_length", 100, "the whole number 100 is not one of: 75, 150, 225"),
        ("resolution", 7, "expected sides from 64 to 16384 px, got the whole number 7"),
        ("resolution", "512,", "expected one whole number or 'width,height'"),
        ("resolution", "1,2,3", "expected one whole number or 'width,height'"),
        ("resolution", True, "expected one whole number or 'width,height'"),
        ("lr_warmup_steps", "1.5", "expected a whole number of steps, or a share below 1"),
        ("lr_warmup_steps", "100%", "expected a percentage from 0% to below 100%"),
        ("lr_warmup_steps", math.nan, "expected a finite number"),
        ("lr_warmup_steps", -1, "-1 is out of range; allowed: 0 to 100000000"),
        ("optimizer_args", ["a=1", 2], "expected a list of texts"),
        ("optimizer_args", "a='1", "every quotation mark closed"),
        ("train_data_dir", "a\0b", "zero byte"),
    ],
)
def test_what_is_said_of_wrong_values(key: str, written: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        convert(declarations()[key], written)
    assert said in str(caught.value)
