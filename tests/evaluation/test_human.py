"""Claims about human references as a system: each is compared with the others, fairly."""

import random

import numpy as np
import pytest

from job.config.scoring_sections import ScoringSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.evaluate import evaluate
from job.evaluation.floors import HUMAN
from job.evaluation.metrics.metric import Metric, each
from job.evaluation.metrics.rouge import ROUGE_1
from job.evaluation.score import score_systems
from job.evaluation.systems import System
from tests.evaluation.conftest import make_conversations

TURNS = (Turn("customer", "Hello"),)
WORDS = ("parcel", "late", "refund", "agent", "customer", "ticket", "number", "order", "train")


def conversation(number: int, *references: str) -> Conversation:
    return Conversation(str(number), TURNS, Source("f", number), references)


def shared_words(summary: str, reference: str) -> float:
    """Return a fast stand-in for ROUGE-1 of texts without repetition."""
    left, right = set(summary.split()), set(reference.split())
    return 2 * len(left & right) / (len(left) + len(right))


SHARED = Metric(
    name="shared",
    title="Shared words",
    short_title="shared",
    hub_type="shared",
    direction="higher",
    low=0,
    high=1,
    unit="score",
    needs=("reference",),
    about="Share of words.",
    measure=each(lambda sample: shared_words(sample.summary, sample.references[0])),
)


def test_a_reference_is_compared_with_the_others_alone() -> None:
    human = System(HUMAN, "human", ["unused"] * 2)
    conversations = [conversation(0, "a b", "a b c d", "x y"), conversation(1, "only one")]
    scores = score_systems([human], conversations, [ROUGE_1], {})[HUMAN]["rouge1"]
    pairs = {(0, 1): 2 * 2 / 6, (0, 2): 0.0, (1, 2): 0.0}
    mean = np.mean(list(pairs.values()))
    first = np.mean([pairs[0, 1], pairs[0, 2]])  # the others against the first
    best = np.mean([pairs[0, 1], pairs[0, 1], 0.0])
    assert scores.values[0] == pytest.approx([first, mean, best])
    assert np.isnan(scores.values[1]).all()


def test_the_best_of_fewer_is_the_mean_best_over_all_references_but_one() -> None:
    system = System("tuned", "judged", ["a b"])
    conversations = [conversation(0, "a b", "a b c d", "x y")]
    scores = score_systems([system], conversations, [SHARED], {})["tuned"]["shared"]
    assert scores.values[0] == pytest.approx([1, (1 + 2 / 3 + 0) / 3, 1])
    assert scores.best_of_fewer[0] == pytest.approx((1 + 1 + 2 / 3) / 3)  # without each in turn


def test_a_system_that_writes_as_people_do_is_as_good_as_people() -> None:
    rng = random.Random(1)
    conversations, summaries = [], []
    for number in range(1500):
        subject = rng.sample(WORDS, 6)
        texts = [" ".join(rng.sample(subject, 4)) for _ in range(4)]
        conversations.append(conversation(number, *texts[:3]))
        summaries.append(texts[3])
    systems = [System("tuned", "judged", summaries), System(HUMAN, "human", summaries)]
    scores = score_systems(systems, conversations, [SHARED], {})
    own, people = scores["tuned"]["shared"], scores[HUMAN]["shared"]
    noise = 0.01  # three standard errors of 1,500 conversations
    assert own.of(SHARED).mean() == pytest.approx(people.of(SHARED).mean(), abs=noise)
    assert own.best_of_fewer.mean() == pytest.approx(people.of(SHARED, "best").mean(), abs=noise)
    assert own.of(SHARED, "first").mean() == pytest.approx(
        people.of(SHARED, "first").mean(), abs=noise
    )
    # Against one reference more, it would seem better than people.
    assert own.of(SHARED, "best").mean() > people.of(SHARED, "best").mean() + 2 * noise


def test_people_are_compared_on_the_conversations_that_have_two_references() -> None:
    conversations = make_conversations(30)
    conversations = [
        c if row < 20 else c._replace(references=c.references[:1])
        for row, c in enumerate(conversations)
    ]
    summaries = [c.references[0] for c in conversations]
    options = ScoringSection(bootstrap_samples=100)
    found = evaluate([System("tuned", "judged", summaries)], conversations, options, None)
    people = found.evaluation.systems[HUMAN]
    assert people.scores["rougeL"]["mean"].conversations == 20
    assert found.evaluation.differences[HUMAN]["rougeL"]["mean"].conversations == 20
    assert people.scores["invented_numbers"]["mean"].conversations == 30


def test_the_best_is_compared_with_peoples_over_as_many_references() -> None:
    conversations = [
        conversation(number, "a b c", f"a b {number}", f"a x {number}") for number in range(12)
    ]
    system = System("tuned", "judged", ["a b c d"] * 12)
    options = ScoringSection(bootstrap_samples=100)
    found = evaluate([system], conversations, options, None).evaluation
    people = System(HUMAN, "human", ["unused"] * 12)
    scores = score_systems([system, people], conversations, [ROUGE_1], {})
    fewer = scores["tuned"]["rouge1"].best_of_fewer
    wanted = fewer - scores[HUMAN]["rouge1"].of(ROUGE_1, "best")
    assert (fewer < scores["tuned"]["rouge1"].of(ROUGE_1, "best")).all()
    assert found.differences[HUMAN]["rouge1"]["best"].mean == pytest.approx(wanted.mean())


def test_one_reference_each_gives_people_shares_to_compare_but_no_score() -> None:
    conversations = [c._replace(references=c.references[:1]) for c in make_conversations(12)]
    summaries = ["The agent helps."] * 12
    options = ScoringSection(bootstrap_samples=100)
    found = evaluate([System("tuned", "judged", summaries)], conversations, options, None)
    people = found.evaluation.systems[HUMAN]
    assert "rougeL" not in people.scores
    assert people.scores["copied"]["mean"].conversations == 12
    assert "copied" in found.evaluation.differences[HUMAN]
