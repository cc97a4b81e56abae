from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from job.evaluation.gallery import gallery
from job.evaluation.systems import Scored
from job.pages.conversations import ShownConversation
from tests.evaluation.reports import full_scored


@pytest.fixture(scope="module")
def shown() -> Sequence[ShownConversation]:
    return gallery(full_scored()).conversations


def tagged(shown: Sequence[ShownConversation], tag: str) -> list[ShownConversation]:
    return [conversation for conversation in shown if tag in conversation.tags]


def test_best_and_worst_are_those_by_the_headline_metric(shown) -> None:
    scores = sorted(full_scored().scores["tuned"]["rougeL"])
    for tag, expected in (("worst", scores[:10]), ("best", scores[-10:])):
        found = sorted(conversation.numbers["score"] for conversation in tagged(shown, tag))
        assert found == pytest.approx(expected, abs=1e-4)


def test_the_random_ones_come_first_and_are_the_same_each_time(shown) -> None:
    assert len(tagged(shown, "random")) == 20
    assert all("random" in conversation.tags for conversation in shown[:20])
    assert [c.id for c in gallery(full_scored()).conversations] == [c.id for c in shown]


def some(rows: int) -> Scored:
    """Return the first conversations of the full report."""
    scored = full_scored()
    systems = [
        replace(
            system,
            summaries=system.summaries[:rows],
            finish_reasons=system.finish_reasons and system.finish_reasons[:rows],
        )
        for system in scored.systems
    ]
    scores = {
        system: {metric: values[:rows] for metric, values in own.items()}
        for system, own in scored.scores.items()
    }
    return replace(
        scored, conversations=scored.conversations[:rows], systems=systems, scores=scores
    )


@pytest.mark.parametrize(("count", "each"), [(1, 0), (5, 2), (16, 8)])
def test_no_conversation_is_both_best_and_worst(count: int, each: int) -> None:
    found = gallery(some(count)).conversations
    assert not [c.id for c in found if {"best", "worst"} <= set(c.tags)]
    assert [len(tagged(found, tag)) for tag in ("best", "worst")] == [each, each]


def test_the_random_ones_are_drawn_from_all(shown) -> None:
    first = {conversation.id for conversation in full_scored().conversations[:20]}
    assert {conversation.id for conversation in tagged(shown, "random")} != first


def test_orders_begin_with_what_their_name_says() -> None:
    orders = gallery(full_scored()).orders
    assert {order.title: (order.number, order.is_descending) for order in orders} == {
        "Lowest ROUGE-L first": ("score", False),
        "Highest ROUGE-L first": ("score", True),
        "Most behind champion first": ("ahead", False),
        "Longest conversation first": ("characters", True),
        "Longest summary first": ("words", True),
        "Most invented first": ("invented", True),
    }


def test_the_most_behind_are_those_with_the_largest_loss(shown) -> None:
    behind = {conversation.id for conversation in tagged(shown, "behind")}
    own, rival = (full_scored().scores[name]["rougeL"] for name in ("tuned", "champion"))
    losses = {
        conversation.id: float(value)
        for conversation, value in zip(full_scored().conversations, own - rival, strict=True)
        if value < 0
    }
    assert behind
    assert behind == set(sorted(losses, key=lambda id: losses[id])[:10])


def test_the_longest_are_those_with_the_most_characters(shown) -> None:
    sizes = sorted(conversation.numbers["characters"] for conversation in shown)
    longest = [conversation.numbers["characters"] for conversation in tagged(shown, "longest")]
    assert sorted(longest) == sizes[-10:]


def test_only_what_is_invented_or_behind_is_listed_as_such(shown) -> None:
    invented = {conversation.id for conversation in tagged(shown, "invented")}
    assert {"c-000", "c-001", "c-002"} <= invented
    assert all(conversation.numbers["ahead"] < 0 for conversation in tagged(shown, "behind"))


def test_floors_and_people_are_left_out_and_the_judged_is_first(shown) -> None:
    for conversation in shown:
        names = [summary.name[:6] for summary in conversation.summaries]
        assert names == ["tuned", "champi", "base w", "hosted"]
        assert len(conversation.references) == 2


def test_badges_name_what_counts_against_a_summary(shown) -> None:
    by_id = {conversation.id: conversation.summaries for conversation in shown}

    def badges(id: str, system: int) -> list[str]:
        return [badge.text for badge in by_id[id][system].badges]

    assert "invented numbers: 4711" in badges("c-000", 0)
    assert "empty" in badges("c-000", 2)
    assert "cut" in badges("c-005", 0)


def test_many_conversations_are_bounded() -> None:
    scored = full_scored()
    many = replace(
        scored,
        conversations=scored.conversations * 10,
        systems=[
            replace(s, summaries=s.summaries * 10, finish_reasons=None) for s in scored.systems
        ],
        scores={
            system: {metric: np.tile(values, 10) for metric, values in own.items()}
            for system, own in scored.scores.items()
        },
    )
    found = gallery(many)
    assert len(found.conversations) == 200
    assert found.of == 220
