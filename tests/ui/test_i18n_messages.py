"""What the backend says is translated by its template, with the values it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend import messages
from backend.errors import InputError, Problem, run_main
from ui.calls import callable_from_page
from ui.i18n import said, said_problem, speaking


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A catalogue of our own in a language of our own."""

    def write(templates: dict[str, str], pieces: dict[str, str] | None = None, **labels: str) -> None:
        found = {"templates": templates, "pieces": pieces or {}, "labels": labels}
        (tmp_path / "xx.json").write_text(json.dumps(found))

    def forget() -> None:
        for cached in (
            messages.templates,
            messages.pieces,
            messages.labels,
            messages.translated,
            messages._catalogue,
        ):
            cached.cache_clear()

    monkeypatch.setattr(messages, "__file__", str(tmp_path / "__init__.py"))
    forget()
    yield write
    monkeypatch.undo()
    forget()


def test_values_come_back_in_the_order_of_the_other_language(words):
    words({"{0} is larger than {1}": "{1} < {0}!"})
    assert messages.translated("a 12 is larger than b 3", "xx") == "b 3 < a 12!"


def test_a_text_without_a_translation_stays_as_it_is(words):
    words({"{0} is larger than {1}": "{1} < {0}"})
    assert messages.translated("nothing of the sort", "xx") == "nothing of the sort"
    assert messages.translated("a is larger than b", "en") == "a is larger than b"


def test_the_template_that_says_more_is_meant(words):
    words({"{0} is missing": "A {0}", "the mask of {0} is missing": "B {0}"})
    assert messages.translated("the mask of cat.png is missing", "xx") == "B cat.png"


def test_values_that_are_messages_are_translated_too(words):
    words({"{0} cannot be read: {1}": "{0} ~ {1}", "it is cut off": "CUT"}, {"{0:n} pictures": "{0} P"})
    assert messages.translated("3 pictures cannot be read: it is cut off", "xx") == "3 P ~ CUT"
    assert messages.translated("many pictures cannot be read: why", "xx") == "many pictures ~ why"


def test_names_of_files_and_tags_inside_of_a_message_stay(words):
    words({"{0} cannot be read": "{0} ~", "Style": "STYLE"}, training="TRAINING")
    assert messages.translated("Style", "xx") == "STYLE"
    assert messages.translated("training", "xx") == "TRAINING"
    assert messages.translated("Style cannot be read", "xx") == "Style ~"
    assert messages.translated("training cannot be read", "xx") == "training ~"


def test_a_word_is_no_sentence(words):
    words({}, {"{0:w} needs {1:w} here": "{1} <- {0}"})
    assert messages.translated("masked_loss needs alpha_mask here", "xx") == "alpha_mask <- masked_loss"
    assert messages.translated("this or that needs another here", "xx") == "this or that needs another here"


def test_braces_and_letters_of_expressions_are_plain_text(words):
    words({"write {{{0}}} (or .*)": "{{{0}}}?"})
    assert messages.translated("write {cat} (or .*)", "xx") == "{cat}?"


def test_place_and_lines_stay(words):
    words({"it is cut off": "CUT", "get it again": "AGAIN"})
    assert messages.translated("config.toml, line 3: it is cut off\n   -> get it again", "xx") == (
        "config.toml, line 3: CUT\n   -> AGAIN"
    )


def test_templates_with_few_letters_would_fit_anything_and_are_not_used(words):
    words({"{0} is {1}": "{0} = {1}"})
    assert messages.translated("what is wrong", "xx") == "what is wrong"


def test_long_technical_text_is_left_alone(words):
    words({"{0} is larger than {1}": "{1} < {0}"})
    text = "a is larger than " + "b" * 3000
    assert messages.translated(text, "xx") == text


def test_problems_keep_what_is_not_read():
    problem = Problem(
        "Model not found: a.safetensors", next="check the path", key="vae", detail="check the path"
    )
    with speaking("ja"):
        told = said_problem(problem.as_dict())
    assert told["what"] == "モデルが見つかりません：a.safetensors"
    assert (told["key"], told["detail"]) == ("vae", "check the path")
    assert told["next"] != "check the path"


def test_a_fault_reaches_the_page_in_its_language():
    def fails(data: dict[str, object]) -> dict[str, object]:
        raise InputError("no base model is chosen", next="give the file of the model to teach", key="x")

    with speaking("zh"):
        problem = callable_from_page(fails)({})["problems"][0]
    assert (problem["what"], problem["next"]) == ("没有选择底模", "请填写要训练的模型文件")
    assert callable_from_page(fails)({})["problems"][0]["what"] == "no base model is chosen"


@pytest.mark.parametrize(
    ("variable", "word"),
    [
        (None, "no base model is chosen"),
        ("ja", "ベースモデルが選ばれていません"),
        ("zh_CN.UTF-8", "没有选择底模"),
    ],
)
def test_command_lines_speak_english_unless_told_otherwise(
    variable: str | None, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv(messages.VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(messages.VARIABLE, variable)

    def main() -> int:
        raise InputError("no base model is chosen", where="config.toml")

    assert run_main(main) == 2
    assert capsys.readouterr().err == f"error: config.toml: {word}\n"


def test_what_is_said_of_a_real_mistake_has_no_english_left(tmp_path: Path):
    """Rules and files, as the Train page shows them."""
    from ui.found import Finder

    values = {"train_data_dir": str(tmp_path / "none"), "network_dropout": 0.1, "bucket_reso_steps": 30}
    with speaking("ja"):
        problems = [said(problem.what) for problem in Finder().look(values, files=True).problems]
    assert len(problems) >= 3
    assert all(any("\u3040" <= letter <= "\u30ff" for letter in what) for what in problems), problems
