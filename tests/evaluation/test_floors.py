import random

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.evaluation.floors import (
    constant_sentence,
    first_and_last,
    lead,
    leave_one_out_sentences,
)
from job.evaluation.subsequences import rouge_l
from job.evaluation.words import RougeTokenizer
from tests.evaluation.conftest import score_pairs


def test_the_constant_sentence_is_the_reference_that_suits_the_others_best() -> None:
    references = [
        "the agent helps with a parcel",
        "the agent helps with a refund",
        "the agent helps",
        "blue moon",
    ]
    assert constant_sentence(references) in references[:2]


def test_no_other_training_reference_beats_the_constant_sentence() -> None:
    rng = random.Random(0)
    words = ["agent", "customer", "parcel", "refund", "late", "says", "offers", "the", "a"]
    references = [" ".join(rng.choice(words) for _ in range(8)) for _ in range(40)]
    chosen = constant_sentence(references)

    def mean(candidate: str) -> float:
        others = [text for text in references if text != candidate]
        return float(
            score_pairs([candidate] * len(others), [[text] for text in others]).of("rougeL").mean()
        )

    assert mean(chosen) == pytest.approx(max(mean(candidate) for candidate in references))


def test_the_constant_sentence_does_not_depend_on_the_draw() -> None:
    rng = random.Random(4)
    words = ["agent", "customer", "parcel", "refund", "late", "says", "offers", "the", "a"]
    references = [" ".join(rng.choices(words, k=3)) for _ in range(500)]
    medoid = "customer agent the parcel says refund"
    references += [" ".join(rng.sample(medoid.split(), 3)) for _ in range(200)]
    references.insert(400, medoid)
    assert {constant_sentence(references, seed) for seed in range(3)} == {medoid}


def test_no_reference_is_compared_with_itself() -> None:
    references = ["late parcel today", "late parcel again", "late parcel now", "late a b c d"]
    rounds = ((4, 1),)  # all are compared with one of them, which would suit itself best
    chosen = {constant_sentence(references, seed, rounds) for seed in range(12)}
    assert chosen <= set(references[:3])


def test_a_single_training_reference_is_the_constant_sentence() -> None:
    assert constant_sentence(["only one"]) == "only one"


def test_leaving_one_out_never_gives_a_conversation_its_own_reference() -> None:
    references = [[f"alpha beta {number}", f"alpha {number} gamma"] for number in range(30)]
    chosen = leave_one_out_sentences(references)
    assert chosen is not None
    assert all(sentence not in own for sentence, own in zip(chosen, references, strict=True))


def test_leaving_one_out_chooses_what_suits_the_other_conversations_best() -> None:
    rng, tokenizer = random.Random(3), RougeTokenizer()
    words = ["agent", "customer", "parcel", "refund", "late", "says", "offers"]
    references = [
        [" ".join(rng.choices(words, k=rng.randint(2, 6))) for _ in range(rng.randint(1, 4))]
        for _ in range(12)
    ]

    def suits(text: str, left_out: set[int]) -> float:
        own = [tokenizer.tokenize(text)]
        others = [texts for row, texts in enumerate(references) if row not in left_out]
        return sum(
            float(rouge_l(own, [tokenizer.tokenize(other) for other in texts]).mean())
            for texts in others
        )

    chosen = leave_one_out_sentences(references)
    assert chosen is not None
    for row, sentence in enumerate(chosen):
        candidates = {
            (owner, text)
            for owner, texts in enumerate(references)
            for text in texts
            if owner != row
        }
        best = max(suits(text, {row, owner}) for owner, text in candidates)
        owners = [owner for owner, text in candidates if text == sentence]
        assert max(suits(sentence, {row, owner}) for owner in owners) == pytest.approx(best)


def test_leaving_one_out_gives_two_conversations_each_the_others_reference() -> None:
    assert leave_one_out_sentences([["one"], ["two"]]) == ["two", "one"]


def test_leaving_one_out_serves_conversations_beyond_the_sample() -> None:
    references = [[f"the agent helps {number}"] for number in range(310)]
    chosen = leave_one_out_sentences(references)
    assert chosen is not None
    assert len(chosen) == 310
    assert all(sentence not in own for sentence, own in zip(chosen, references, strict=True))


def test_leaving_one_out_of_one_conversation_leaves_nothing_to_choose() -> None:
    assert leave_one_out_sentences([["only", "own"]]) is None


@pytest.mark.parametrize(
    ("turns", "wanted"),
    [
        ((Turn("customer", "a"), Turn("agent", "b"), Turn("customer", "c")), ("a\nb", "a\nc")),
        (
            (
                Turn("system", "rules"),
                Turn("agent", "a"),
                Turn("customer", "b"),
                Turn("system", "closed"),
            ),
            ("a\nb", "a\nb"),
        ),
        ((Turn("customer", "a"),), ("a", "a")),
        ((Turn("system", "only"),), ("only", "only")),
    ],
)
def test_floors_repeat_turns_of_the_talk(turns: tuple[Turn, ...], wanted: tuple[str, str]) -> None:
    conversation = Conversation("c", turns, Source("f", 1))
    assert (lead(conversation), first_and_last(conversation)) == wanted


def test_the_fast_rouge_l_is_the_librarys_number() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer, rng = RougeTokenizer(), random.Random(1)
    plain = RougeScorer(["rougeL"], use_stemmer=True)
    vocabulary = ["run", "running", "cat", "dog", "a"]
    # Rows of one integer and of several, and one that fills its integer.
    lengths = [0, 1, 63, 64, 65, *(rng.randint(0, 150) for _ in range(15))]
    texts = [" ".join(rng.choices(vocabulary, k=length)) for length in lengths]

    words = [tokenizer.tokenize(text) for text in texts]
    for lefts, rights in ((texts, texts[:3]), (texts[:7], texts)):
        found = rouge_l(words[: len(lefts)], words[: len(rights)])
        for row, left in enumerate(lefts):
            wanted = [plain.score(left, right)["rougeL"].fmeasure for right in rights]
            assert found[row].tolist() == pytest.approx(wanted)
