"""Claims about a base whose files are broken or missing: its error names the file and the remedy.

A plan, which reads little, and a run raise the same error.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.sections import PromptSection, StorageSection
from job.errors import ConfigError, DataError, MissingError, RecapError
from job.model.fetch import fetch_base
from job.model.load import load_tokenizer
from job.preflight.access import describe_base

NOTHING = StorageSection()
WEIGHTS = "model.safetensors"


def error_of(call: Callable[[], Any]) -> RecapError:
    with pytest.raises(RecapError) as caught:
        call()
    return caught.value


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def test_config_that_is_no_json_is_65_for_plan_and_run(copy):
    (copy / "config.json").write_text("{bad")
    for call in (
        lambda: describe_base(str(copy), None, NOTHING),
        lambda: fetch_base(str(copy), None, NOTHING, copy),
    ):
        error = error_of(call)
        assert type(error) is DataError
        assert str(error) == (
            f"model.base: {copy}/config.json is no JSON (Expecting property name enclosed in "
            "double quotes: line 1 column 2 (char 1)); copy or fetch it again"
        )


@pytest.mark.parametrize("size", [0, 5, 100, -4])
def test_weights_that_are_cut_short_are_65_for_plan_and_run(copy, size):
    whole = (copy / WEIGHTS).stat().st_size
    cut(copy / WEIGHTS, size % whole if size < 0 else size)
    messages = {
        str(error_of(lambda: describe_base(str(copy), None, NOTHING))),
        str(error_of(lambda: fetch_base(str(copy), None, NOTHING, copy))),
    }
    wanted = f"is no safetensors file, or cut short within its header ({size} bytes)"
    if size < 0:
        wanted = f"has {whole - 4:,} bytes, its header says {whole:,}"
    assert messages == {f"model.base: {copy}/{WEIGHTS} {wanted}; copy or fetch it again"}


def test_shard_that_only_the_index_has_is_66(copy):
    index = {"weight_map": {"a": WEIGHTS, "b": "second"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    error = error_of(lambda: describe_base(str(copy), None, NOTHING))
    assert type(error) is MissingError
    assert str(error) == (
        f"model.base: {copy} lacks second, which model.safetensors.index.json names; "
        "copy or fetch it again"
    )


def test_base_in_s3_is_checked_like_a_folder(copy, s3):
    client = s3.client()
    cut(copy / WEIGHTS, 1000)
    for file in copy.iterdir():
        client.upload_file(str(file), s3.bucket, f"base/{file.name}")
    error = error_of(lambda: describe_base(f"{s3.uri}/base", None, NOTHING))
    assert str(error).startswith(
        f"model.base: {s3.uri}/base/{WEIGHTS} is no safetensors file, or cut short within"
    )


def test_base_without_tokenizer_is_66_unless_an_adapter_has_one(copy):
    for file in copy.glob("tokenizer*"):
        file.unlink()
    wanted = (
        f"model.base: {copy} has no tokenizer (tokenizer.json or tokenizer.model); "
        "put the tokenizer's files there with tokenizer.save_pretrained(...)"
    )
    for call in (
        lambda: describe_base(str(copy), None, NOTHING, PromptSection()),
        lambda: load_tokenizer(copy),
    ):
        error = error_of(call)
        assert (type(error), str(error)) == (MissingError, wanted)
    assert "1 weight file" in describe_base(str(copy), None, NOTHING)


PANIC = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("post_processor", PANIC),
        ("model", {"type": "WordPiece", "vocab": {}, "unk_token": "[U]"}),
    ],
)
def test_tokenizer_that_fails_in_use_is_65(copy, key, value):
    content = json.loads((copy / "tokenizer.json").read_text())
    more = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    if key == "model":
        value = value | more
    (copy / "tokenizer.json").write_text(json.dumps(content | {key: value}))
    error = error_of(lambda: load_tokenizer(copy))
    assert type(error) is DataError
    assert str(error).startswith(f"{copy}: its tokenizer cannot be loaded (")


def test_a_foolish_config_is_not_blamed_on_the_tokenizer(copy):
    config = json.loads((copy / "config.json").read_text()) | {"num_attention_heads": 5}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "tokenizer_config.json").unlink()  # without a class, the config decides
    error = error_of(lambda: load_tokenizer(copy))
    assert type(error) is DataError
    assert str(error).startswith(f"model.base: {copy} cannot be loaded by its config.json (")
    assert "\n" not in str(error)


@pytest.mark.parametrize("broken", ["{bad", "{}", '{"model": {"type": "Nothing"}}'])
def test_broken_tokenizer_is_65_with_its_files(copy, broken):
    (copy / "tokenizer.json").write_text(broken)
    error = error_of(lambda: load_tokenizer(copy))
    assert type(error) is DataError
    assert str(error).startswith(f"{copy}: its tokenizer cannot be loaded (")
    assert str(error).endswith(
        "copy or fetch its files again (tokenizer.json, tokenizer_config.json)"
    )


def test_chat_style_without_chat_template_is_64_for_a_plan(copy):
    chat = PromptSection(style="chat")
    error = error_of(lambda: describe_base(str(copy), None, NOTHING, chat))
    assert type(error) is ConfigError
    assert str(error) == (
        f"prompt.style is chat, but the tokenizer of model.base {copy} has no chat template: "
        "use an instruct model, or prompt.style: instruction"
    )
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert "1 weight file" in describe_base(str(copy), None, NOTHING, chat)


def test_revision_of_a_folder_or_prefix_is_64(copy):
    for uri, kind in ((str(copy), "a folder here"), ("s3://bucket/base", "an s3:// prefix")):
        for call in (
            lambda uri=uri: describe_base(uri, "main", NOTHING),
            lambda uri=uri: fetch_base(uri, "main", NOTHING, copy),
        ):
            error = error_of(call)
            assert type(error) is ConfigError
            assert str(error).startswith(
                f"model.revision: {uri} is {kind}, and only a Hub id has revisions; remove it"
            )
