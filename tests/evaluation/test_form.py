"""Claims about the form of a summary: length, emptiness, cuts and repetition."""

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.evaluation.metrics.form import is_cut, is_empty, is_repeating, length_ratio
from job.evaluation.metrics.metric import Sample

CONVERSATION = Conversation("c", (Turn("customer", "Hello"),), Source("f", 1))


def sample(summary: str, *references: str, finish_reason: str | None = None) -> Sample:
    return Sample(summary, CONVERSATION, references, finish_reason)


def test_the_length_ratio_is_of_the_mean_length_of_the_references() -> None:
    assert length_ratio(sample("one two three", "one", "one two three")) == 1.5
    assert length_ratio(sample("客户要求退款", "客户要求")) == 1.5
    assert length_ratio(sample("one two three")) is None


@pytest.mark.parametrize("text", ["", " \n", ".", "…", "-", "\u200b", "\u2800", "\x00", "😀"])
def test_a_summary_without_a_letter_or_a_digit_is_empty(text: str) -> None:
    assert is_empty(sample(text)) == 1


@pytest.mark.parametrize("text", ["a", "5", "好", "٣", "½"])
def test_a_summary_of_a_letter_or_a_digit_is_not_empty(text: str) -> None:
    assert is_empty(sample(text)) == 0


def test_a_cut_is_known_by_the_reason_alone() -> None:
    reasons = ("length", "stop", None)
    assert [is_cut(sample("Ends with", finish_reason=reason)) for reason in reasons] == [1, 0, None]


@pytest.mark.parametrize(
    "text",
    [
        "The agent helps. " * 2 + "The agent helps the customer. The agent helps the customer.",
        "no no no no no no",
        "The customer asks for a refund, the customer asks for a refund, the customer asks for a",
        "ha" * 200,
        "The customer is x" + "s" * 100,
        "😀" * 50,
        "lol " * 20,
        "客户要求退还全部的款项，客户要求退还全部的款项，客户要求退还全部的款项。",
    ],
)
def test_what_is_said_again_and_again_is_repetition(text: str) -> None:
    assert is_repeating(sample(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The customer asks for a refund. The agent refuses. The customer asks for a manager.",
        "Thanks. Thanks.",
        "Sooooo good!!!!!!!! " + "-" * 60 + " Refund of 10000000000.",
        "客户要求退款，客服同意退款，客户感谢客服。",
        "客户要求退款并投诉。客户要求退款被拒，主管致电。客户要求退款，得到同意。",
    ],
)
def test_two_sentences_that_begin_alike_are_no_repetition(text: str) -> None:
    assert is_repeating(sample(text)) == 0
