import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from job.config.scoring_sections import ScoringSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.evaluate import evaluate
from job.evaluation.metrics.metric import Metric
from job.evaluation.metrics.rouge import METRICS as ROUGE
from job.evaluation.result import Evaluation
from job.evaluation.score import Scores, score_systems
from job.evaluation.systems import Scored, System

ITEMS = ("parcel", "invoice", "router", "refund", "flight", "password")
TROUBLES = ("is late", "was charged twice", "does not work", "was cancelled without notice")
ENDS = ("offers a refund", "opens a ticket", "asks for the order number", "resets the account")


def make_conversations(count: int, seed: int = 0) -> list[Conversation]:
    """Make conversations with two references each.

    They differ in what broke, how, and what the agent does.
    """
    rng = random.Random(seed)
    made = []
    for number in range(count):
        item, trouble, end = rng.choice(ITEMS), rng.choice(TROUBLES), rng.choice(ENDS)
        turns = (
            Turn("customer", f"Hello, my {item} {trouble}. What now?"),
            Turn("agent", "Sorry to hear that! Let me look into it."),
            Turn("customer", f"Thanks, I am waiting. My order is {number}."),
            Turn("agent", f"Our team {end} today."),
        )
        references = (
            f"The customer says that the {item} {trouble}. The agent {end}.",
            f"A {item} {trouble}, so the agent {end}.",
        )
        made.append(
            Conversation(
                f"c-{number:03d}", turns, Source("s3://b/test.jsonl", number + 1), references
            )
        )
    return made


class Measured:
    """Scores of one system by the names of metrics."""

    def __init__(self, scores: Mapping[str, Scores], metrics: Sequence[Metric]) -> None:
        self.scores = scores
        self.metrics = {metric.name: metric for metric in metrics}

    def of(self, name: str, aggregation: str = "mean") -> NDArray[np.float64]:
        return self.scores[name].of(self.metrics[name], aggregation)


def score_pairs(
    summaries: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[Metric] = ROUGE,
) -> Measured:
    """Score summaries beside their references, without conversations."""
    turns = (Turn("customer", "Hello"),)
    conversations = [
        Conversation(str(row), turns, Source("f", row), tuple(texts))
        for row, texts in enumerate(references)
    ]
    system = System("tuned", "judged", list(summaries))
    return Measured(score_systems([system], conversations, metrics, {})["tuned"], metrics)


def references_of(conversations: list[Conversation]) -> list[str]:
    return [text for conversation in conversations for text in conversation.references]


@pytest.fixture(scope="session")
def conversations() -> list[Conversation]:
    return make_conversations(40)


@pytest.fixture(scope="session")
def scored(conversations: list[Conversation]) -> Scored:
    """A tuned system that reads, and a base that does not."""
    systems = [
        System("tuned", "judged", [conversation.references[0] for conversation in conversations]),
        System("base without adapter", "base", ["Sorry to hear that!" for _ in conversations]),
    ]
    train = references_of(make_conversations(60, seed=1))
    return evaluate(systems, conversations, ScoringSection(), train)


@pytest.fixture(scope="session")
def good(scored: Scored) -> Evaluation:
    return scored.evaluation


@pytest.fixture(scope="session")
def collapsed_scored(conversations: list[Conversation]) -> Scored:
    """A tuned system that says the same to everyone, and nothing to one."""
    summaries = [
        "The customer says that the parcel is late.",
        *["The agent <b>helps</b>."] * 38,
        "",
    ]
    systems = [System("tuned", "judged", summaries)]
    return evaluate(systems, conversations, ScoringSection(), None)


@pytest.fixture(scope="session")
def collapsed(collapsed_scored: Scored) -> Evaluation:
    return collapsed_scored.evaluation
