"""The quality of a night for its page: a table of figures, what they count, and the languages."""

from collections.abc import Mapping
from typing import Any

from job.pages.charts import Table
from job.printable import number_of
from job.summarization.quality import FIGURES, Figure

HEAD = ("figure", "mean", "standard deviation", "of records")


def figures_table(block: Mapping[str, Any]) -> Table | None:
    """Return the figures of a block in the order of FIGURES; None for a night without any."""
    rows = []
    for figure in _figures_of(block):
        measured = block["figures"][figure.name]
        spread = "" if figure.is_share else f"{measured['sd']:,.2f}"
        mean = _shown(figure, measured["mean"])
        rows.append((figure.title, mean, spread, f"{measured['records']:,}"))
    return Table(HEAD, rows) if rows else None


def meanings(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the title of each figure with what it counts."""
    return [(figure.title, figure.about) for figure in _figures_of(block)]


def language_pairs(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the languages with their conversations, the most common one first."""
    languages = block["languages"]
    order = sorted(languages, key=lambda name: (-languages[name], name))
    return [(name, f"{languages[name]:,}") for name in order]


def sample_sentence(block: Mapping[str, Any]) -> str:
    """Return what the figures are counted of, as a note."""
    sampled = number_of(block["sample"]["records"], "sampled record", "sampled records")
    return (
        f"Of {sampled}, chosen by id; characters and cut summaries are of all summaries, rejects "
        "of all records. recap watch compares these figures with the nights before."
    )


def _figures_of(block: Mapping[str, Any]) -> list[Figure]:
    return [figure for figure in FIGURES if figure.name in block["figures"]]


def _shown(figure: Figure, mean: float) -> str:
    return f"{mean:.2%}" if figure.is_share else f"{mean:,.2f}"
