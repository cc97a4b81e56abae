"""Claims about copying: fragments, coverage and density, each worked out by hand."""

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.evaluation.metrics.copying import copied, coverage, density
from job.evaluation.metrics.metric import Sample

TURNS = (
    Turn("customer", "My parcel is five days late and nobody answers my calls at all."),
    Turn("agent", "Sorry! It arrives tomorrow by noon."),
)
CONVERSATION = Conversation("c", TURNS, Source("f", 1))


@pytest.mark.parametrize(
    ("summary", "lengths", "words"),
    [
        ("Parcel is late.", (2, 1), 3),  # parcel is | late
        ("It arrives tomorrow, my parcel.", (3, 2), 5),
        ("my my parcel is", (1, 3), 4),  # the longest match of each start: my | my parcel is
        ("my calls at all", (4,), 4),  # not the first "my", which is of a parcel
        ("Nothing here matches", (), 3),
        ("", (), 1),
    ],
)
def test_coverage_and_density_are_what_fragments_by_hand_give(
    summary: str, lengths: tuple[int, ...], words: int
) -> None:
    sample = Sample(summary, CONVERSATION)
    assert coverage(sample) == pytest.approx(sum(lengths) / words)
    assert density(sample) == pytest.approx(sum(length**2 for length in lengths) / words)


def test_only_long_runs_are_copied() -> None:
    eight = "my parcel is five days late and nobody"
    assert copied(Sample(eight, CONVERSATION)) == 1
    assert copied(Sample(f"He says {eight}", CONVERSATION)) == 0.8
    assert copied(Sample(eight.removesuffix(" nobody"), CONVERSATION)) == 0


def test_a_copied_conversation_is_copied_in_any_script() -> None:
    text = "你好，我的包裹已经迟到五天了，没有人接我的电话。"
    conversation = Conversation("c", (Turn("customer", text),), Source("f", 1))
    assert copied(Sample(text, conversation)) == 1
    assert copied(Sample("客户的包裹迟到。", conversation)) == 0
