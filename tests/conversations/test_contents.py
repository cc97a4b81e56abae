"""Claims about the faults of references, and repeats, as they are counted in conversations."""

from job.conversations.contents import contents_of
from job.conversations.record import Conversation, Source, Turn
from job.conversations.splits import compare


def spoken(number, text, *references):
    turns = (Turn("customer", text), Turn("agent", "Bye."))
    return Conversation(f"c{number}", turns, Source("data.jsonl", number), references)


def test_each_reference_has_one_fault_at_most():
    contents = contents_of(
        [
            spoken(1, "hello", "A parcel is late."),
            spoken(2, "hello", "", "Late", "a  PARCEL is late."),
            spoken(3, "hello", "顧客は小包の遅延について問い合わせた"),
            spoken(4, "hello", "The same twice.", "The same twice."),
        ]
    )
    assert contents.references == 7
    assert (contents.empty.count, contents.short.count, contents.repeated.count) == (1, 1, 1)
    assert contents.repeated.first == "data.jsonl line 2"
    assert contents.poor == 3


def test_turns_and_text_are_counted_by_role():
    contents = contents_of([spoken(1, "12345678", "A summary of it.")])
    assert contents.turns == {2: 1}
    assert contents.shares() == {"customer": 8 / 12, "agent": 4 / 12}


def test_a_repeat_counts_once_with_the_earliest():
    words = [f"w{number}" for number in range(40)]
    near = " ".join([*words[:20], "other", *words[21:]])
    texts = ["one", " ".join(words), near, " ".join(words).upper(), "one!", "two"]
    repeats = compare([spoken(number, text) for number, text in enumerate(texts)], []).train
    assert (repeats.exact, repeats.near) == (2, 1)
    assert repeats.first == (("c0", "c4"), ("c1", "c3"), ("c1", "c2"))
