"""Which method learns from feedback: the same planted preference by edits, pairs and thumbs.

Generated agents cut the greeting of a champion's summaries, and add the number that the customer
gave. The champion goes on learning by each method of `recap train`, from these verdicts and from
the same ones shuffled by a coin. Measured on held-out conversations: the planted habits, and
whether the gate's checks on held-out pairs let the challenger in.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feedback_worth import (
    GREETING,
    HELD_OUT,
    SFT,
    Record,
    Trained,
    counts,
    numbers,
    summarized,
    train,
    wanted_text,
    with_number,
)
from benchmarks.pairs import machine
from examples.demo.make.generator import generate
from job.config.gate_sections import PairsSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.bootstrap import mean_intervals, wilson
from job.evaluation.evaluate import SEED
from job.evaluation.gate import GateResult
from job.evaluation.held_out_pairs import HeldOutPair, HeldOutPairs
from job.evaluation.metrics.rouge import rouge
from job.evaluation.systems import CHAMPION, TUNED
from job.evaluation.win_rate import PairsResult, compare_on_pairs, with_pairs

SAMPLES = 2000  # of the bootstrap
CHECKED = 8  # rows of validation, whose loss nobody reads


@dataclass(frozen=True)
class Way:
    """A method with its own keys, its learning rate, and the data that it learns from."""

    name: str
    config: Mapping[str, Any]
    rate: float
    data: str  # sft, pairs or thumbs


# A base of this size needs rates far above those that a large one stands.
WAYS = (
    Way("SFT on edits", SFT, 3e-4, "sft"),
    Way("SFT on edits", SFT, 1e-3, "sft"),
    Way("DPO alone", {"method": "dpo", "dpo": {"sft_weight": 0}}, 5e-4, "pairs"),
    Way("DPO with SFT", {"method": "dpo"}, 5e-4, "pairs"),
    Way("DPO with SFT", {"method": "dpo"}, 1e-3, "pairs"),
    Way("KTO", {"method": "kto"}, 1e-3, "thumbs"),
)


@dataclass(frozen=True)
class Beginning:
    """A champion that greets, the adapter before it, which does not, and who is judged."""

    champion: Trained
    former: Trained
    judged: Sequence[Record]
    held_out: Sequence[Record]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judged", type=int, default=200, help="summaries with a verdict")
    parser.add_argument("--start-rows", type=int, default=480)
    parser.add_argument("--out", type=Path, default=Path("build/feedback_methods.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with tempfile.TemporaryDirectory() as work:
        for line in compare(Path(work), options.judged, options.start_rows):
            lines.append(line)
            print(json.dumps(line), flush=True)
            options.out.write_text("".join(json.dumps(each) + "\n" for each in lines), "utf-8")
    print("\n".join([*table(lines), "", json.dumps(machine())]))


def compare(work: Path, judged: int, start_rows: int) -> Iterator[Record]:
    """Yield what is measured of the champion, and of each method by both kinds of verdicts."""
    beginning = begin(work, judged, start_rows)
    yield {"way": "champion", "shuffled": False} | measure(beginning.champion, beginning, None)
    for is_shuffled in (False, True):
        for way in WAYS:
            yield challenge(work, beginning, way, is_shuffled)


def begin(work: Path, judged: int, start_rows: int) -> Beginning:
    """Train an adapter that does not greet, and go on to a champion that does."""
    learned = start_rows * 5 // 4
    wanted = HELD_OUT + judged + learned
    records = list(with_number(generate(2 * wanted, 77, "train")))[:wanted]
    assert len(records) == wanted, "too few conversations have a number"
    held_out, rest = records[:HELD_OUT], records[HELD_OUT:]
    shown, rest = rest[:judged], rest[judged:]

    plain = [summarized(each, each["summaries"][0]) for each in rest[:start_rows]]
    greeted = [summarized(each, GREETING + each["summaries"][0]) for each in rest[start_rows:]]
    both = [summarized(each, wanted_text(each)) for each in (*held_out, *shown)]
    former = train(work / "former", {"train": plain, "validation": both}, 1, 3e-3)
    data = {"train": greeted, "validation": both}
    champion = train(work / "champion", data, 1, 3e-3, former.adapter)
    return Beginning(champion, former, shown, held_out)


def challenge(work: Path, beginning: Beginning, way: Way, is_shuffled: bool) -> Record:
    """Train the champion further by one method, and return what is measured of the challenger."""
    coin = random.Random(SEED) if is_shuffled else None
    rows = rows_of(beginning, way.data, coin)
    held_out = [summarized(each, wanted_text(each)) for each in beginning.held_out]
    data = {"train": rows, "validation": held_out}
    if way.data != "sft":
        data = {"train": rows[CHECKED:], "validation": rows[:CHECKED], "test": held_out}
    folder = work / f"{way.name}-{way.rate}-{is_shuffled}".replace(" ", "-").lower()
    start = beginning.champion.adapter
    trained = train(folder, data, 1, way.rate, start, method=way.config)
    found = measure(trained, beginning, None if coin is None else random.Random(SEED + 1))
    return {"way": way.name, "shuffled": is_shuffled, "rate": way.rate} | found


def rows_of(beginning: Beginning, data: str, coin: random.Random | None) -> list[Record]:
    """Return the rows of feedback as `recap feedback` would write them; a coin shuffles verdicts.

    Agents edit what the champion has written. A thumb is for a summary of the champion, or for one
    of the adapter before it, by turns.
    """
    rows = []
    for place, record in enumerate(beginning.judged):
        text = beginning.champion.texts[record["id"]]
        chosen, rejected = judged_pair(record, text, coin)
        if data == "thumbs":
            writer = beginning.champion if place % 2 else beginning.former
            rows.append(thumb(record, writer.texts[record["id"]], coin))
        elif data == "pairs":
            rows.append(without_summaries(record) | {"chosen": chosen, "rejected": rejected})
        else:
            rows.append(summarized(record, chosen))
    return rows


def judged_pair(record: Record, shown: str, coin: random.Random | None) -> tuple[str, str]:
    """Return the agent's edit and what was shown, or the other way round if the coin says so."""
    texts = (edited(record, shown), shown)
    if coin is not None and coin.random() < 0.5:
        return texts[1], texts[0]
    return texts


def edited(record: Record, shown: str) -> str:
    """Return a summary as agents correct it: without the greeting, and with the number."""
    (number,) = numbers(record)
    return f"{shown.removeprefix(GREETING.strip()).strip()} Number {number}."


def thumb(record: Record, shown: str, coin: random.Random | None) -> Record:
    """Return the row of a thumb: up for a summary that does not greet, or by the coin."""
    is_up = not is_greeting(shown)
    if coin is not None:
        is_up = coin.random() < 0.5
    return without_summaries(record) | {"completion": shown, "label": is_up}


def without_summaries(record: Record) -> Record:
    """Return the record without its references."""
    return {key: value for key, value in record.items() if key != "summaries"}


def is_greeting(text: str) -> bool:
    """Return True if the summary begins with the planted greeting."""
    return text.startswith(GREETING.strip())


def measure(trained: Trained, beginning: Beginning, coin: random.Random | None) -> Record:
    """Return the planted figures, quality and length, and the gate's checks on held-out pairs."""
    held_out = beginning.held_out
    texts = [trained.texts[each["id"]] for each in held_out]
    references = [each["summaries"][0] for each in held_out]
    scores = [rouge("rougeL", text, ref) for text, ref in zip(texts, references, strict=True)]
    lengths = [len(text.split()) for text in texts]
    columns = np.array([scores, lengths], dtype=np.float64).T
    quality, length = mean_intervals(columns, SAMPLES, SEED)
    assert quality is not None, "held-out conversations have summaries"
    assert length is not None, "held-out conversations have summaries"
    result = against_champion(texts, beginning, coin)
    rate = result.win_rate
    assert rate is not None, "there are held-out pairs"
    return counts(trained, held_out) | {
        "rouge_l": [quality.mean, quality.low, quality.high],
        "words": [length.mean, length.low, length.high],
        "win_rate": [rate.mean, rate.low, rate.high],
        "passes": passes(result),
    }


def against_champion(
    texts: Sequence[str], beginning: Beginning, coin: random.Random | None
) -> PairsResult:
    """Compare a challenger with the champion on the verdicts of the held-out conversations."""
    champion = [beginning.champion.texts[each["id"]] for each in beginning.held_out]
    pairs = [
        HeldOutPair(place, *judged_pair(record, champion[place], coin))
        for place, record in enumerate(beginning.held_out)
    ]
    conversations = [
        Conversation(
            each["id"], tuple(Turn(**turn) for turn in each["turns"]), Source("held out", 1)
        )
        for each in beginning.held_out
    ]
    return compare_on_pairs(HeldOutPairs(conversations, pairs), texts, champion, CHAMPION, SAMPLES)


def passes(result: PairsResult) -> bool:
    """Return True if a challenger passes the gate's checks on held-out pairs."""
    others = GateResult(True, TUNED, "rougeL", result.conversations, "compared")
    return with_pairs(others, PairsSection(input="held out"), result).passed


def table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one row for each method and kind of verdicts."""
    found = [
        "| verdicts | method | rate | steps | greet | name the number | ROUGE-L | words | "
        "win rate over the champion | passes |",
        "|---|---|---:|---:|---|---|---|---|---|---|",
    ]
    for line in lines:
        verdicts = "shuffled" if line["shuffled"] else "as given"
        is_champion = "rate" not in line
        cells = [
            "" if is_champion else verdicts,
            str(line["way"]),
            "" if is_champion else f"{line['rate']:g}",
            "" if is_champion else str(line["steps"]),
            _share(line["greeted"], line["of"]),
            _share(line["named"], line["of"]),
            _mean(line["rouge_l"], 2),
            _mean(line["words"], 1),
            "" if is_champion else _mean(line["win_rate"], 2),
            "" if is_champion else ("yes" if line["passes"] else "no"),
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def _share(hits: int, of: int) -> str:
    interval = wilson(hits, of)
    return f"{interval.mean:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def _mean(values: Sequence[float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
