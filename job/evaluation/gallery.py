"""The conversations of a report: which are chosen, and what is remarked on each summary."""

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from job.evaluation.metrics.all_metrics import HEADLINE, METRICS
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import Kind, shorten, shown_value
from job.evaluation.systems import Scored, System
from job.evaluation.words import length
from job.pages.conversations import (
    Badge,
    Gallery,
    Order,
    ShownConversation,
    ShownSummary,
    fit,
)

MAX_CONVERSATIONS = 200
RANDOM, OF_EACH_KIND = 20, 10
SEED = 0
# In this order beside a conversation; floors and people are left out.
SHOWN_KINDS: tuple[Kind, ...] = ("judged", "champion", "as_trained", "base", "other")

Column = NDArray[np.float64]  # a number for each conversation


def gallery(scored: Scored) -> Gallery:
    """Return at most MAX_CONVERSATIONS, drawn at random and by what is remarkable about them."""
    numbers = _numbers(scored)
    rival = _rival(scored)
    tags = {
        "random": "Random",
        "best": "Best",
        "worst": "Worst",
        "behind": f"Most behind {rival.name}" if rival else "",
        "longest": "Longest",
        "invented": "Most invented",
    }
    tagged = _choose(numbers, len(scored.conversations))
    shown = [_shown(scored, row, names, numbers) for row, names in tagged.items()]
    orders = [
        Order(f"Lowest {HEADLINE.title} first", "score"),
        Order(f"Highest {HEADLINE.title} first", "score", is_descending=True),
        Order("Longest conversation first", "characters", is_descending=True),
        Order("Longest summary first", "words", is_descending=True),
        Order("Most invented first", "invented", is_descending=True),
    ]
    if rival:
        orders.insert(2, Order(f"Most behind {rival.name} first", "ahead"))
    present = [order for order in orders if order.number in numbers]
    return Gallery(fit(shown), tags, present, of=len(scored.conversations))


def _rival(scored: Scored) -> System | None:
    """Return the champion, or while there is none another system that generated summaries."""
    for kind in ("champion", "base", "other"):
        for system in scored.systems:
            if system.kind == kind:
                return system
    return None


def _numbers(scored: Scored) -> dict[str, Column]:
    """Return what conversations are chosen and ordered by, NaN where there is no number."""
    judged = scored.systems[0]
    own = scored.scores[judged.name]
    count = len(scored.conversations)
    sizes = [sum(len(turn.text) for turn in c.turns) for c in scored.conversations]
    numbers = {
        "characters": np.array(sizes),
        "words": np.array([length(text) for text in judged.summaries]),
    }
    if HEADLINE.name in own:
        numbers["score"] = own[HEADLINE.name]
        rival = _rival(scored)
        if rival and HEADLINE.name in scored.scores[rival.name]:
            numbers["ahead"] = own[HEADLINE.name] - scored.scores[rival.name][HEADLINE.name]
    numbers["invented"] = np.array([len(_marks(scored, judged, row)) for row in range(count)])
    return numbers


def _choose(numbers: Mapping[str, Column], count: int) -> dict[int, list[str]]:
    """Return the chosen conversations with their tags: the random ones first."""
    rng = random.Random(SEED)
    shuffled = rng.sample(range(count), count)
    tagged: dict[int, list[str]] = {row: ["random"] for row in shuffled[:RANDOM]}

    # Of few conversations, none is among the best and among the worst.
    at_ends = min(OF_EACH_KIND, count // 2)

    def add(tag: str, name: str, sign: int, most: int, limit: float = -math.inf) -> None:
        if name not in numbers:
            return
        values = sign * numbers[name]
        able = [row for row in range(count) if values[row] > limit]  # NaN is not
        for row in sorted(able, key=lambda row: (-values[row], sign * row))[:most]:
            tagged.setdefault(row, []).append(tag)

    add("best", "score", 1, at_ends)
    add("worst", "score", -1, at_ends)
    add("behind", "ahead", -1, OF_EACH_KIND, limit=0)
    add("longest", "characters", 1, OF_EACH_KIND)
    add("invented", "invented", 1, OF_EACH_KIND, limit=0)
    for row in shuffled:
        if len(tagged) >= MAX_CONVERSATIONS:
            break
        tagged.setdefault(row, [])
    return tagged


def _shown(
    scored: Scored, row: int, tags: Sequence[str], numbers: Mapping[str, Column]
) -> ShownConversation:
    conversation = scored.conversations[row]
    summaries = []
    for kind in SHOWN_KINDS:
        for system in scored.systems:
            if system.kind == kind:
                summaries.append(_summary(scored, system, row))
    badges = []
    if "score" in numbers:
        badges.append(Badge(f"{HEADLINE.title} {numbers['score'][row]:.2f}"))
    rival = _rival(scored)
    if rival and "ahead" in numbers:
        badges.append(Badge(f"{numbers['ahead'][row]:+.2f} against {rival.name}"))
    return ShownConversation(
        id=conversation.id,
        turns=conversation.turns,
        references=conversation.references,
        summaries=summaries,
        tags=tags,
        badges=badges,
        numbers={name: round(float(values[row]), 4) for name, values in numbers.items()},
    )


def _summary(scored: Scored, system: System, row: int) -> ShownSummary:
    text = system.summaries[row]
    values = {name: float(column[row]) for name, column in scored.scores[system.name].items()}
    marks = _marks(scored, system, row)
    return ShownSummary(system.name, text, system.kind, _badges(text, values, marks), marks)


def _marks(scored: Scored, system: System, row: int) -> dict[str, str]:
    """Return the parts of a summary that metrics count against it, each with the metric's title."""
    sample = system.sample(row, scored.conversations[row])
    marks: dict[str, str] = {}
    for metric in METRICS:
        if metric.finds:
            marks |= {part: metric.title.lower() for part in metric.finds(sample)}
    return marks


def _badges(text: str, values: Mapping[str, float], marks: Mapping[str, str]) -> list[Badge]:
    """Return the headline score, the length, and each metric that counts something against it."""
    badges = []
    if math.isfinite(values.get(HEADLINE.name, math.nan)):
        badges.append(Badge(f"{HEADLINE.title} {values[HEADLINE.name]:.2f}"))
    badges.append(Badge(f"{length(text)} words"))
    for metric in METRICS:
        if _is_against(metric) and values.get(metric.name, 0.0) > 0:
            value = values[metric.name]
            # A share is 0 or 1 of one summary, if it is one of summaries.
            is_flag = value == 1 and metric.unit == "share"
            title = metric.title.lower()
            found = ", ".join(part for part, reason in marks.items() if reason == title)
            amount = "" if is_flag else f" {shown_value(value, metric)}"
            remark = f"{title}: {shorten(found, 40)}" if found else f"{title}{amount}"
            badges.append(Badge(remark, "bad" if is_flag else "plain"))
    return badges


def _is_against(metric: Metric) -> bool:
    return metric.direction == "lower" and metric.low == 0 and "reference" not in metric.needs
