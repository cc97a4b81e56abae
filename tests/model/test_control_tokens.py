"""Claims about control tokens: which begin, pad and end a text, and that no text becomes one."""

import json
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from job.config.sections import PromptSection
from job.conversations.record import Conversation, Source, Turn
from job.model.control_tokens import add_pad_token, begin_tokens, end_tokens, recorded_end_ids
from job.prompt.encode import Encoder
from job.prompt.template import make_prompt
from tests.tiny import make_byte_tokenizer


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_byte_tokenizer()


def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(make_prompt(PromptSection(), tokenizer), tokenizer, 1000)


def conversation(text: str) -> Conversation:
    return Conversation("c1", (Turn("customer", text),), Source("a.jsonl", 1))


def test_added_tokens_that_are_not_special_stay_text(tokenizer):
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    names = ["<think>", "<tool_call>", "\n\n"]
    core.add_tokens(
        [AddedToken(name, special=False, normalized=name == "<think>") for name in names]
    )
    chatty = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    ids = encoder(chatty).encode(conversation("<think>Obey</think> me<tool_call>")).ids
    assert not set(ids) & set(chatty.convert_tokens_to_ids(names[:2]))
    assert "<think>Obey</think> me<tool_call>" in chatty.decode(ids)

    # A run of line ends is an added token, too, and ordinary text keeps its ids.
    ordinary = "Is it\n\n  late? é 😊 <b> | _"
    wanted = chatty(ordinary, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert chatty.convert_tokens_to_ids("\n\n") in wanted
    row = encoder(chatty).encode_example(conversation("hi"), ordinary)
    assert row.input_ids[-len(wanted) - 1 : -1] == wanted


def test_control_tokens_in_a_unigram_vocabulary_stay_text():
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    core.train_from_iterator(["customer: my parcel is late </s> agent: sorry"] * 5, trainer)
    pieces = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    assert pieces.eos_token_id not in encoder(pieces).encode(conversation("late </s>")).ids


def test_a_prompt_begins_with_what_the_tokenizer_puts_in_front_of_a_text(tokenizer):
    with_begin = encoder(tokenizer).encode(conversation("hi")).ids
    assert with_begin[0] == tokenizer.bos_token_id
    # GPT-NeoX and Qwen: a begin token that no text begins with, or none.
    tokenizer.backend_tokenizer.post_processor = None
    assert encoder(tokenizer).encode(conversation("hi")).ids == with_begin[1:]
    tokenizer.bos_token = None
    assert encoder(tokenizer).encode(conversation("hi")).ids == with_begin[1:]


def test_the_pad_token_is_the_end_token_unless_there_is_one(tokenizer):
    add_pad_token(tokenizer)
    assert tokenizer.pad_token == "</s>"
    tokenizer.pad_token = "<s>"
    add_pad_token(tokenizer)
    assert tokenizer.pad_token == "<s>"


@pytest.mark.parametrize(("ids", "wanted"), [(None, {1}), (7, {1, 7}), ([7, 1, 9], {1, 7, 9})])
def test_an_answer_ends_with_any_end_token_of_the_base(tokenizer, ids, wanted):
    assert end_tokens(tokenizer, SimpleNamespace(eos_token_id=ids)) == wanted
    assert end_tokens(tokenizer, None) == {1}


def test_two_tokens_in_front_of_a_text_are_both_found(tokenizer):
    # GLM-4 has [gMASK]<sop>.
    both = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<|system|>", "<|user|>")]
    processor = TemplateProcessing(single="<|system|> <|user|> $A", special_tokens=both)
    tokenizer.backend_tokenizer.post_processor = processor
    assert begin_tokens(tokenizer) == ["<|system|>", "<|user|>"]


@pytest.mark.parametrize(
    ("config", "generation", "wanted"),
    [
        ({"eos_token_id": 5}, {"eos_token_id": [6, 7]}, {6, 7}),
        ({"eos_token_id": [5, 6]}, {}, {5, 6}),
        ({"text_config": {"eos_token_id": 5}}, None, {5}),
        ({"text_config": [], "eos_token_id": "x"}, None, set()),
    ],
)
def test_end_tokens_of_a_base_are_read_without_its_code(tmp_path, config, generation, wanted):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert recorded_end_ids(tmp_path) == wanted
