"""Sides follow content alone, and what stands on both sides is found."""

import random

import pytest

from job.conversations.nearness import near_pairs
from job.conversations.record import Conversation, Source, Turn
from job.conversations.splits import (
    NEAR,
    Overlap,
    compare,
    content_digest,
    find_repeats,
    hold_out,
)
from job.errors import DataError

WORDS = [f"word{n}" for n in range(400)]


def find_overlap(train, validation):
    return compare(train, validation).overlap


def conversation(name, *texts, references=()):
    return Conversation(
        name, tuple(Turn("customer", text) for text in texts), Source("x", 1), references
    )


def many(count, seed=3):
    rng = random.Random(seed)
    return [conversation(f"c{seed}-{n}", " ".join(rng.choices(WORDS, k=30))) for n in range(count)]


def changed(one, position):
    """The conversation under another id with one of its words replaced."""
    words = one.turns[0].text.split()
    words[position] = "changed"
    return conversation(f"{one.id}-changed", " ".join(words))


def ids(side):
    return {one.id for one in side}


def test_digest_is_that_of_the_words_alone():
    one = conversation("a", "Let's GO,", "now!")
    for same in (
        conversation("b", "lets  go now", references=("S.",)),
        one._replace(turns=(Turn("agent", "Lets go"), Turn("customer", "Now."))),
    ):
        assert content_digest(same) == content_digest(one)
    assert content_digest(conversation("a", "go lets now")) != content_digest(one)
    assert content_digest(conversation("a", "😊")) != content_digest(conversation("a", "🎉"))


def test_a_digest_of_ascii_is_that_of_any_text():
    """Text in ASCII and other text are cleaned in two ways; one letter more takes the other."""
    every = "".join(map(chr, range(128)))
    apart = conversation("a", f"{every} {every.swapcase()} tail")
    beyond = conversation("b", f"{every} {every.swapcase()} tail \u0301")  # is deleted
    assert content_digest(apart) == content_digest(beyond)


def test_repeats_across_two_sides_are_those_of_a_full_comparison():
    train, others = many(60, seed=1), many(20, seed=2)
    held_out = [*others, train[3], changed(train[7], 4), changed(train[3], 0), train[3]]
    train += [changed(train[7], 20), changed(others[0], 2), others[0]._replace(id="again")]
    found = find_repeats(train, held_out)
    assert found == find_overlap(train, held_out)
    assert [each.kind for each in found] == ["exact", "exact", "near", "near"]
    assert find_repeats([], held_out) == find_repeats(train, []) == []


def test_held_out_share_is_about_the_fraction_in_order():
    everything = many(2000)
    train, validation = hold_out(everything, 0.1, seed=42)
    assert 150 < len(validation) < 250
    assert sorted(train + validation, key=everything.index) == everything
    assert [one for one in everything if one.id in ids(train)] == train


def test_side_does_not_change_with_order_or_additions_but_with_the_seed():
    everything = many(300)
    held = ids(hold_out(everything, 0.2, seed=1)[1])
    shuffled = random.Random(9).sample(everything, 300)
    assert ids(hold_out(shuffled, 0.2, seed=1)[1]) == held
    assert ids(hold_out(everything + many(300, seed=4), 0.2, seed=1)[1]) & ids(everything) == held
    assert ids(hold_out(everything, 0.2, seed=2)[1]) != held


def test_exact_and_near_repeats_land_on_one_side():
    originals = many(200)
    repeats = [one._replace(id=f"{one.id}-again") for one in originals] + [
        changed(one, 7) for one in originals
    ]
    train, validation = hold_out(originals + repeats, 0.3, seed=5)
    for one in originals:
        family = {one.id, f"{one.id}-again", f"{one.id}-changed"}
        assert family <= ids(train) or family <= ids(validation)
    assert find_overlap(train, validation) == []


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_side_is_ever_empty(fraction):
    for seed in range(20):
        train, validation = hold_out(many(3), fraction, seed)
        assert len(train) + len(validation) == 3
        assert train
        assert validation


def test_one_conversation_cannot_be_split():
    with pytest.raises(
        DataError, match=r"2 conversations, of which 1 differ .*give data\.validation"
    ):
        hold_out([conversation("a", "hi"), conversation("b", "Hi!")], 0.5, 1)
    with pytest.raises(DataError, match="0 conversations"):
        hold_out([], 0.5, 1)


def test_exact_and_near_overlaps_are_named_with_their_similarity():
    train, others = many(50), many(20, seed=8)
    copy, near = train[3]._replace(id="copy"), changed(train[9], 29)
    assert find_overlap(train, [*others, near, copy]) == [
        Overlap("c3-3", "copy", "exact", 1.0, 1),
        Overlap("c3-9", "c3-9-changed", "near", round(25 / 27, 4), 1),
    ]
    assert find_overlap([], others) == find_overlap(train, []) == find_overlap([], []) == []


def test_every_copy_in_train_is_named_with_how_many_repeat_it():
    train = [
        conversation("a", "Same text"),
        conversation("b", "same text."),
        conversation("c", "other"),
    ]
    pairs = find_overlap(train, [conversation("v", "same TEXT"), conversation("w", "Same text")])
    assert pairs == [Overlap(one, "v", "exact", 1.0, 2) for one in "ab"]


def test_the_nearest_repeat_is_the_one_that_is_named():
    one = many(1)[0]
    twice = changed(changed(one, 0), 29)
    pairs = find_overlap([one], [twice._replace(id="far"), changed(one, 29)._replace(id="close")])
    assert pairs == [Overlap(one.id, "close", "near", round(25 / 27, 4), 2)]


def test_thousands_of_one_line_are_one_overlap_for_each_of_train():
    train = [conversation(f"t{n}", "Thanks!") for n in range(3000)]
    pairs = find_overlap(train, [conversation(f"v{n}", "thanks") for n in range(1000)])
    assert len(pairs) == 3000
    assert {pair.count for pair in pairs} == {1000}


def test_near_pairs_are_those_of_comparing_all_with_all():
    def shingles(text):
        words = text.split()
        return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}

    def similarity(one, other):
        return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))

    rng = random.Random(2)
    texts = ["", "hi", "hi", "hi there", "a b c d", "a b c d e"]
    for _ in range(40):
        words = rng.choices(WORDS, k=rng.randrange(1, 40))
        for _ in range(3):
            texts.append(" ".join("other" if rng.random() < 0.04 else word for word in words))
    for threshold in (0.3, NEAR, 0.8):
        within = {
            (i, j): similarity(texts[i], texts[j])
            for j in range(len(texts))
            for i in range(j)
            if similarity(texts[i], texts[j]) >= threshold
        }
        assert {
            (i, j): share for i, j, share in near_pairs(texts, None, threshold)
        } == pytest.approx(within)
        left, right = texts[::2], texts[1::2]
        between = {
            (i, j): similarity(left[i], right[j])
            for i in range(len(left))
            for j in range(len(right))
            if similarity(left[i], right[j]) >= threshold
        }
        assert {
            (i, j): share for i, j, share in near_pairs(left, right, threshold)
        } == pytest.approx(between)
