"""Claims about answers of models that think: the summary is what follows the thought."""

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from job.inference.engine import to_answer, why_only_thought
from job.model.thoughts import may_think, read_answer
from tests.tiny import CHAT_TEMPLATE, make_byte_tokenizer

HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]
PAIRS = [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>", "<channel|>")]


def make_tokenizer(*controls: str, special: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = make_byte_tokenizer()
    tokenizer.add_tokens([AddedToken(control, special=special) for control in controls])
    return tokenizer


def ids(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def typed(text: str) -> list[int]:
    """The ids of a text in which nothing is a control token."""
    return ids(text, make_byte_tokenizer())


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("begin", "end"), PAIRS)
def test_a_thought_between_control_tokens_is_left_out(begin, end, special):
    tokenizer = make_tokenizer(begin, end, special=special)
    thought = f"{begin}The customer wants…\n{end}\n\n"
    for text in (f"{thought}A refund.", f"Okay, so{end}A refund.", f"A refund.{thought}"):
        found = read_answer(ids(text, tokenizer), tokenizer)
        assert (found.text.strip(), found.is_only_thought) == ("A refund.", False)


@pytest.mark.parametrize(("begin", "end"), [*PAIRS, ("◁think▷", "◁/think▷")])
def test_a_thought_in_text_at_the_beginning_is_left_out(begin, end):
    tokenizer = make_tokenizer()
    found = read_answer(ids(f"\n{begin}Hm…{end}\n\nA refund.", tokenizer), tokenizer)
    assert found.text.strip() == "A refund."


@pytest.mark.parametrize(
    ("thoughts", "answer"),
    [
        ("<think>\n\n</think>\n\n<think>I must…</think>\n", "A refund."),
        ("<thinking>x</thinking><think>y</think>", "A refund."),
        ("<think>x</think><thinking>y</thinking><think>z</think>", "A refund."),
        ("<think>a</think>\n<think>b, cut", ""),
    ],
)
def test_each_of_several_thoughts_in_text_is_left_out(thoughts, answer):
    tokenizer = make_tokenizer()
    found = read_answer(ids(thoughts + answer, tokenizer), tokenizer)
    assert (found.text.strip(), found.is_only_thought) == (answer, not answer)


@pytest.mark.parametrize("controls", [[], ["<think>", "</think>"]])
def test_a_thought_that_was_cut_is_no_summary(controls):
    tokenizer = make_tokenizer(*controls)
    for text in ("<think>The customer wants", "<think>The customer wants a refund.</think>\n"):
        found = to_answer(ids(text, tokenizer), [tokenizer.eos_token_id], tokenizer)
        assert found.text.strip() == ""
        assert found.is_only_thought
        assert found.output_tokens == len(ids(text, tokenizer))
        assert "raise generation.max_new_tokens" in why_only_thought(found)


@pytest.mark.parametrize("controls", [[], ["<think>", "</think>"]])
def test_a_summary_that_quotes_a_mark_stays_as_it_is(controls):
    tokenizer = make_tokenizer(*controls)
    for text in ("She typed <think>hello</think> twice.", "It says </think>."):
        found = read_answer(typed(text), tokenizer)
        assert found == (text, False)


def test_a_typed_mark_stays_if_the_tokenizer_has_a_token_for_it():
    tokenizer = make_tokenizer("<think>", "</think>")
    assert read_answer(typed("<think> was typed."), tokenizer).text == "<think> was typed."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A refund.", "A refund."),
        ("<|channel|>analysis<|message|>Hm…<|end|><|start|>assistant"
         "<|channel|>final<|message|>A refund.", "A refund."),
        ("A refund.<|end|><|start|>assistant<|channel|>analysis<|message|>Hm", "A refund."),
        (" to=self<|message|>Hm…<|end|><|start|>assistant to=user<|message|>A refund.",
         "A refund."),
        ("<|channel|>analysis<|message|>We need to", ""),
        ("<|channel|>commentary to=functions.f <|message|>{}", ""),
        ("<|channel|>fin", ""),
    ],
)  # fmt: skip
def test_only_the_final_channel_is_the_answer(text, wanted):
    tokenizer = make_tokenizer(*HARMONY, special=True)
    found = read_answer(ids(text, tokenizer), tokenizer)
    assert (found.text.strip(), found.is_only_thought) == (wanted, not wanted)


def test_an_answer_of_nothing_is_no_thought():
    tokenizer = make_tokenizer("<think>", "</think>")
    assert read_answer([], tokenizer) == ("", False)
    found = to_answer([tokenizer.eos_token_id], [tokenizer.eos_token_id], tokenizer)
    assert (found.finish_reason, found.is_only_thought) == ("stop", False)


def test_a_template_that_knows_thoughts_is_of_a_base_that_may_think():
    tokenizer = make_tokenizer("<think>", "</think>")
    tokenizer.chat_template = CHAT_TEMPLATE
    assert not may_think(tokenizer), "Qwen3's vocabulary has them also where nobody thinks"
    tokenizer.chat_template = CHAT_TEMPLATE + "{# <think> #}"
    assert may_think(tokenizer)
