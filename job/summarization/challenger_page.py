"""A challenger on the page of its night: its counts and figures beside those of the adapter."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from job.pages.charts import Table
from job.pages.conversations import Badge, ShownSummary
from job.summarization.identity import CHALLENGER
from job.summarization.quality import FIGURES
from job.summarization.sides import Pair

BY_CHALLENGER = "challenger"  # tag of summaries


class ChallengerPart(NamedTuple):
    """The part of the page about a challenger: who it is, what it did, and a table."""

    sentence: str
    table: Table


def challenger_part(facts: Mapping[str, Any]) -> ChallengerPart | None:
    """Return the part of a night whose manifest has these facts; None without a challenger."""
    block = facts.get(CHALLENGER)
    if block is None or "counts" not in block:
        return None
    share = f"{block['share']:.2%}"
    if block["mode"] == "shadow":
        sentence = (
            f"In shadow: it summarized {share} of the conversations, too. None of its lines is "
            "delivered. Both columns are of the same conversations."
        )
    else:
        sentence = (
            f"As canary: it summarized {share} of the conversations in place of the adapter. The "
            "columns are of different conversations, which their ids have chosen."
        )
    return ChallengerPart(sentence, Table(("figure", "adapter", "challenger"), _rows(block)))


def _rows(block: Mapping[str, Any]) -> list[tuple[str, ...]]:
    sides = (block["beside"], block)
    rows = [("Conversations", *(f"{side['counts']['records']:,}" for side in sides))]
    rows.append(("Summaries", *(f"{side['counts']['summaries']:,}" for side in sides)))
    for figure in FIGURES:
        found = [side["figures"].get(figure.name) for side in sides]
        if figure.of == "output" and any(found):
            rows.append((figure.title, *(_cell(value, figure.is_share) for value in found)))
    return rows


def _cell(value: Mapping[str, float] | None, is_share: bool) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.1%}" if is_share else f"{value['mean']:,.1f}"


def shown_beside(pair: Pair) -> ShownSummary:
    """Return what the challenger made of a record in shadow, as the gallery shows it."""
    row = pair.beside
    if "summary" in row:
        badges: Sequence[Badge] = ()
        if row["finish_reason"] == "length":
            badges = (Badge("cut off", "bad"),)
        return ShownSummary("Challenger", row["summary"], "other", badges)
    return ShownSummary("Challenger", "", "other", (Badge(row["reason"], "bad"),))
