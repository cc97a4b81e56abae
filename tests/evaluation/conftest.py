import random

import pytest

from job.config.sections import ScoringSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.evaluate import evaluate
from job.evaluation.result import Evaluation

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
            Turn("customer", "Thanks, I am waiting."),
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


def references_of(conversations: list[Conversation]) -> list[str]:
    return [text for conversation in conversations for text in conversation.references]


@pytest.fixture(scope="session")
def conversations() -> list[Conversation]:
    return make_conversations(40)


@pytest.fixture(scope="session")
def good(conversations: list[Conversation]) -> Evaluation:
    """A tuned system that reads, and a base that does not."""
    systems = {
        "tuned": [conversation.references[0] for conversation in conversations],
        "base without adapter": ["Sorry to hear that!" for _ in conversations],
    }
    return evaluate(
        systems, conversations, ScoringSection(), references_of(make_conversations(60, seed=1))
    )


@pytest.fixture(scope="session")
def collapsed(conversations: list[Conversation]) -> Evaluation:
    """A tuned system that says the same to everyone, and nothing to one."""
    summaries = [
        "The customer says that the parcel is late.",
        *["The agent <b>helps</b>."] * 38,
        "",
    ]
    return evaluate({"tuned": summaries}, conversations, ScoringSection(), None)
