"""Claims about a base's tokenizer and chat template, in each form in which they are published.

A form is read as it is meant, or refused by a sentence with the remedy, by plan and run alike.
"""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from job.config.sections import PromptSection, StorageSection
from job.errors import ConfigError, DataError, MissingError, RecapError
from job.model.files import files_in_folder
from job.model.load import load_tokenizer
from job.preflight.access import describe_base, small_files
from job.prompt.template import make_prompt
from tests.tiny import CHAT_TEMPLATE, make_byte_tokenizer

STORAGE = StorageSection()
CHAT = PromptSection(style="chat", system="Sum it up.")
BEFORE = "<|system|>Sum it up.</s><|user|>"
OTHER_TEMPLATE = CHAT_TEMPLATE.replace("</s>", "!")

WORDS = "where is my parcel it late we look into order refund agent customer sorry hello"
CONTROLS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.fixture
def chat_base(copy: Path) -> Path:
    """A base whose tokenizer knows the control tokens of CHAT_TEMPLATE, and has no template."""
    for file in copy.glob("tokenizer*"):
        file.unlink()
    make_byte_tokenizer().save_pretrained(copy)
    return copy


def plan(base: Path, prompt: PromptSection) -> str:
    with small_files(str(base), None, STORAGE) as small:
        return describe_base(str(base), None, STORAGE, prompt, small=small)


def error_of_plan_and_run(base: Path, prompt: PromptSection) -> tuple[RecapError, RecapError]:
    with pytest.raises(RecapError) as of_plan:
        plan(base, prompt)
    with pytest.raises(RecapError) as of_run:
        make_prompt(prompt, load_tokenizer(base))
    assert type(of_plan.value) is type(of_run.value)
    return of_plan.value, of_run.value


def write_template(base: Path, form: str) -> None:
    """Write CHAT_TEMPLATE in one of the forms in which templates are published."""
    named = [
        {"name": "default", "template": CHAT_TEMPLATE},
        {"name": "rag", "template": OTHER_TEMPLATE},
    ]
    forms = {
        "chat_template.jinja": ("chat_template.jinja", CHAT_TEMPLATE),
        "chat_template.json": ("chat_template.json", {"chat_template": CHAT_TEMPLATE}),
        "names in chat_template.json": ("chat_template.json", {"chat_template": named}),
        "config": ("tokenizer_config.json", {"chat_template": CHAT_TEMPLATE}),
        "names in config": ("tokenizer_config.json", {"chat_template": named}),
    }
    if form == "folder":
        write_template(base, "chat_template.jinja")
        (base / "additional_chat_templates").mkdir()
        (base / "additional_chat_templates" / "rag.jinja").write_text(OTHER_TEMPLATE)
        return
    name, content = forms[form]
    if isinstance(content, str):
        (base / name).write_text(content)
        return
    there = json.loads((base / name).read_text()) if (base / name).exists() else {}
    (base / name).write_text(json.dumps(there | content))


@pytest.mark.parametrize(
    "form",
    [
        "chat_template.jinja",
        "chat_template.json",
        "names in chat_template.json",
        "config",
        "names in config",
        "folder",
    ],
)
def test_a_chat_template_is_found_in_every_form(chat_base, form):
    write_template(chat_base, form)
    assert "1 weight file" in plan(chat_base, CHAT)
    assert make_prompt(CHAT, load_tokenizer(chat_base)).before == BEFORE


@pytest.mark.parametrize("form", ["names in config", "names in chat_template.json", "folder"])
def test_templates_of_which_none_is_the_default_are_refused(chat_base, form):
    write_template(chat_base, form)
    if form == "folder":
        (chat_base / "chat_template.jinja").rename(
            chat_base / "additional_chat_templates" / "tool_use.jinja"
        )
    else:
        name = "tokenizer_config.json" if form == "names in config" else "chat_template.json"
        content = (chat_base / name).read_text().replace('"default"', '"tool_use"')
        (chat_base / name).write_text(content)
    for error in error_of_plan_and_run(chat_base, CHAT):
        assert type(error) is ConfigError
        assert "has several chat templates (rag, tool_use) and none is named default" in str(error)
        assert "save the one to be used as chat_template.jinja" in str(error)
    assert "1 weight file" in plan(chat_base, PromptSection())


def test_a_template_of_the_tokenizer_precedes_chat_template_json(chat_base):
    write_template(chat_base, "config")
    (chat_base / "chat_template.json").write_text(json.dumps({"chat_template": OTHER_TEMPLATE}))
    assert make_prompt(CHAT, load_tokenizer(chat_base)).before == BEFORE


@pytest.mark.parametrize("content", ["{bad", "[]", "{}", '{"chat_template": [1]}'])
def test_chat_template_json_without_a_template_is_65(chat_base, content):
    (chat_base / "chat_template.json").write_text(content)
    for error in error_of_plan_and_run(chat_base, CHAT):
        assert type(error) is DataError
        assert "chat_template.json" in str(error)


def keep_only(base: Path, *files: Path) -> None:
    """Replace the tokenizer of a base by these files."""
    for file in base.glob("tokenizer*"):
        file.unlink()
    for file in files:
        shutil.copy(file, base)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A vocabulary of sentencepiece of each kind, in files of the usual name."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    texts = [" ".join(WORDS.split()[start:] + WORDS.split()[:start]) for start in range(15)]
    made = {}
    for kind, size in (("bpe", 316), ("unigram", 32)):
        folder = tmp_path_factory.mktemp(kind)
        trainer.train(
            sentence_iterator=iter(texts * 4),
            model_prefix=str(folder / "tokenizer"),
            vocab_size=size,
            model_type=kind,
            byte_fallback=kind == "bpe",
            # As Llama's: nothing is normalized.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        made[kind] = folder / "tokenizer.model"
    return made


def test_tokenizer_model_alone_is_read_as_sentencepiece_reads_it(copy, pieces):
    import sentencepiece

    keep_only(copy, pieces["bpe"])
    config = {"tokenizer_class": "LlamaTokenizer"} | CONTROLS
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    assert "1 weight file" in plan(copy, PromptSection())
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces["bpe"]))
    text = "hello agent where is my order"
    tokenizer = load_tokenizer(copy)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == model.encode(text)


def test_a_vocabulary_that_transformers_reads_otherwise_is_refused(copy, pieces):
    keep_only(copy)
    shutil.copy(pieces["unigram"], copy / "sentencepiece.bpe.model")
    (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XGLMTokenizer"}))
    # The property for which the rule exists: all words are unknown, and nothing fails.
    assert AutoTokenizer.from_pretrained(str(copy)).vocab_size < 32
    for error in error_of_plan_and_run(copy, PromptSection()):
        assert type(error) is ConfigError
        assert str(error) == (
            f"model.base: transformers reads sentencepiece.bpe.model of {copy} otherwise than "
            "sentencepiece does (XGLMTokenizer); put a tokenizer.json there: load the tokenizer "
            "where it is read right, and call tokenizer.save_pretrained(...)"
        )


def test_pieces_without_tokenizer_config_are_refused_if_read_otherwise(copy, pieces):
    keep_only(copy, pieces["bpe"])
    with pytest.raises(ConfigError, match=r"otherwise than sentencepiece does"):
        load_tokenizer(copy)


def test_tokenizer_json_needs_no_comparison(copy):
    (copy / "tokenizer.model").write_bytes(b"of another tokenizer")
    assert load_tokenizer(copy).eos_token == "</s>"


def test_damaged_tokenizer_model_is_65(copy, pieces):
    keep_only(copy)
    (copy / "tokenizer.model").write_bytes(pieces["bpe"].read_bytes()[:500])
    for error in error_of_plan_and_run(copy, PromptSection()):
        assert type(error) is DataError
        assert "copy or fetch its files again (tokenizer.model)" in str(error)


def test_tekken_alone_is_64_with_the_remedy(copy):
    keep_only(copy)
    (copy / "tekken.json").write_text("{}")
    for error in error_of_plan_and_run(copy, PromptSection()):
        assert type(error) is ConfigError
        assert "has its tokenizer as tekken.json only, which recap does not read" in str(error)


def test_tekken_beside_tokenizer_json_is_not_read(copy):
    (copy / "tekken.json").write_text("{}")
    assert "1 weight file" in plan(copy, PromptSection())


def test_vocab_json_without_merges_is_66(copy):
    keep_only(copy)
    (copy / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    for error in error_of_plan_and_run(copy, PromptSection()):
        assert type(error) is MissingError
        assert "has vocab.json without merges.txt" in str(error)


def test_a_plan_loads_the_tokenizer_of_a_base_in_s3(chat_base, s3):
    write_template(chat_base, "folder")
    client = s3.client()
    for path in files_in_folder(chat_base, "").sizes:
        client.upload_file(str(chat_base / path), s3.bucket, f"base/{path}")
    uri = f"{s3.uri}/base"
    with small_files(uri, None, STORAGE) as small:
        assert "1 weight file" in describe_base(uri, None, STORAGE, CHAT, small=small)
        assert not list(small.folder.glob("*.safetensors"))
        folder = small.folder
    assert not folder.exists()
    client.put_object(Bucket=s3.bucket, Key="base/tokenizer.json", Body=b"{bad")
    with (
        small_files(uri, None, STORAGE) as small,
        pytest.raises(DataError, match=f"{uri}: its tokenizer cannot be loaded"),
    ):
        describe_base(uri, None, STORAGE, CHAT, small=small)
