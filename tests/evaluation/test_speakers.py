"""Claims about speaker swaps: plain ones are seen, and what people write is none."""

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.evaluation.metrics.metric import Sample
from job.evaluation.metrics.speakers import has_swap

TURNS = (
    Turn("customer", "My washing machine leaks water since yesterday evening, please help."),
    Turn("agent", "Could you send us the serial number and the receipt by direct message?"),
)


def sample(summary: str, turns: tuple[Turn, ...] = TURNS) -> Sample:
    return Sample(summary, Conversation("c", turns, Source("f", 1)))


@pytest.mark.parametrize(
    ("summary", "swap"),
    [
        ("The customer's complaint: leaks. Agent asks for the serial number and receipt.", 0),
        ("Customer says the washing machine leaks water. Agent wants serial number, receipt.", 0),
        ("The agent says that the washing machine leaks water since yesterday.", 1),
        ("The customer asks to send the serial number and the receipt by message.", 1),
        ("The customer was asked to send the serial number and the receipt by message.", None),
        ("The agent understands that the machine leaks, and asks for the receipt.", 0),
        ("A leaking machine; a serial number is wanted.", None),
        ("", None),
    ],
)
def test_a_swap_says_of_one_what_only_the_other_said(summary: str, swap: float | None) -> None:
    assert has_swap(sample(summary)) == swap


def test_without_both_roles_nothing_can_be_swapped() -> None:
    named = tuple(turn._replace(role=name) for turn, name in zip(TURNS, ("Ann", "Bo"), strict=True))
    assert has_swap(sample("The agent says that the washing machine leaks water.", named)) is None
