"""Simulate how much feedback is enough: a planted preference, learned from more and more edits.

Generated agents always add the number that the customer gave and cut the greeting. A starting
adapter greets and names no number. `recap`'s own training goes on from it with some edits, and the
share of held-out summaries that are as agents want them is the planted figure. Beside it, by
statistics alone: how many held-out pairs a win rate needs.
"""

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pairs import machine
from examples.demo.make.generator import generate
from job.evaluation.bootstrap import wilson

BASE = Path(__file__).parent.parent / "examples" / "demo" / "base"
NUMBER = re.compile(r"\b[A-Z]{1,3}\d{3,6}\b")
GREETING = "Hello team. "
REPLAYED = 0.6  # of the rows of an epoch
HELD_OUT = 60
SHARES = (0.55, 0.6, 0.65, 0.7, 0.8, 0.9)  # true win rates
POWER = 0.8
MAX_PAIRS = 1000
SFT: Mapping[str, Any] = {"method": "sft"}
Record = dict[str, Any]


def main() -> None:
    """Measure, and print the page of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, nargs="+", default=[25, 50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start-rows", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=Path("build/feedback_worth.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for line in simulate(Path(work), options):
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    lines = [json.loads(line) for line in options.out.read_text("utf-8").splitlines()]
    print("\n".join([*planted_table(lines), "", *pairs_table(), "", json.dumps(machine())]))


def simulate(work: Path, options: argparse.Namespace) -> Iterator[Record]:
    """Yield the planted figure of the starting adapter, and after each number of edits."""
    most = max(options.edits)
    wanted = options.start_rows + HELD_OUT + options.seeds * most
    records = list(with_number(generate(2 * wanted, 77, "train")))[:wanted]
    assert len(records) == wanted, "too few conversations have a number"
    held_out, rest = records[:HELD_OUT], records[HELD_OUT:]
    first, rest = rest[: options.start_rows], rest[options.start_rows :]

    wanted_of = [summarized(each, wanted_text(each)) for each in held_out]
    greeted = [summarized(each, GREETING + each["summaries"][0]) for each in first]
    data = {"train": greeted, "validation": wanted_of}
    start = train(work / "start", data, epochs=1, rate=3e-3)
    yield {"edits": 0, "seed": 0} | counts(start, held_out)
    for seed in range(options.seeds):
        edited = [summarized(each, wanted_text(each)) for each in rest[seed * most :][:most]]
        for edits in options.edits:
            data = {"train": edited[:edits], "validation": wanted_of}
            folder = work / f"{edits}-{seed}"
            trained = train(folder, data, 2, 1e-3, start.adapter, seed)
            yield {"edits": edits, "seed": seed} | counts(trained, held_out)


def with_number(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records whose customer gives exactly one number, such as AX1770."""
    for record in records:
        if len(numbers(record)) == 1:
            yield record


def numbers(record: Record) -> set[str]:
    """Return the numbers in a conversation."""
    return {found for turn in record["turns"] for found in NUMBER.findall(turn["text"])}


def wanted_text(record: Record) -> str:
    """Return the reference as agents make it: without a greeting, and with the number."""
    return naming(record, record["summaries"][0])


def naming(record: Record, text: str) -> str:
    """Return a text with the customer's number, in words behind which the base copies one."""
    (number,) = numbers(record)
    return f"{text} The reference is {number}."


def summarized(record: Record, text: str) -> Record:
    """Return the record with this text as its only reference."""
    return record | {"summaries": [text]}


@dataclass(frozen=True)
class Trained:
    """An adapter's folder, and what it writes of the conversations of test or validation, by id."""

    adapter: Path
    texts: Mapping[str, str]
    steps: int
    seconds: float  # from reading the data to the last step


def training_section(rate: float, epochs: int, seed: int) -> dict[str, Any]:
    """Return the config's section of a training that only learns."""
    return {
        "seed": seed,
        "epochs": epochs,
        "learning_rate": rate,
        "batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_tokens": 512,
        "evaluate_every_epochs": 1000,
        "save_every_epochs": 1000,
        "sample_summaries": 0,
    }


def train(
    work: Path,
    data: Mapping[str, Sequence[Record]],
    epochs: int,
    rate: float,
    start_from: Path | None = None,
    seed: int = 42,
    method: Mapping[str, Any] = SFT,
) -> Trained:
    """Train on the demo base as `recap train` does, from an adapter or with a new one.

    `data` has records by the keys train, validation, test and replay; of the last two there need be
    none. If there is replay, it is REPLAYED of the rows. `method` has the config's method, and by
    its name the section of the training that it has.
    """
    from job.config.commands import TrainConfig
    from job.model.fetch import BASE_KEY
    from job.storage.folders import publish_folder
    from job.storage.local import LocalStore
    from job.training.build import build_trainer
    from job.training.prepare import prepare
    from job.training.publish import write_adapter
    from job.training.scoring import adapter_folder, summarize_in_memory

    work.mkdir(parents=True)
    for split, records in data.items():
        text = "".join(json.dumps(each) + "\n" for each in records)
        (work / f"{split}.jsonl").write_text(text, encoding="utf-8")
    name = method["method"]
    training = training_section(rate, epochs, seed) | {
        "start_from": str(start_from) if start_from else None,
        **{key: value for key, value in method.items() if key == name},
    }
    content: dict[str, Any] = {
        "run": work.name,
        "method": name,
        "model": {"base": str(BASE)},
        "data": {split: str(work / f"{split}.jsonl") for split in data}
        | {"replay_share": REPLAYED},
        "output": str(work),
        "training": training,
        "generation": {"max_new_tokens": 64},
    }
    if start_from is None:
        content["lora"] = {"r": 64, "alpha": 64}
    began = time.monotonic()
    store = LocalStore(str(work / work.name))
    run = prepare(TrainConfig.model_validate(content), work, store)
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    trainer.train()
    seconds = round(time.monotonic() - began, 1)
    judging = run.data.examples.scoring
    texts = summarize_in_memory(run, trainer.model)(judging).texts
    write_adapter(run, trainer)
    facts = {BASE_KEY: run.base.identity(), "run": work.name}
    publish_folder(adapter_folder(run), store, "adapter", facts)
    by_id = {each.id: text for each, text in zip(judging, texts, strict=True)}
    return Trained(work / work.name / "adapter", by_id, trainer.state.global_step, seconds)


def counts(trained: Trained, held_out: Sequence[Record]) -> Record:
    """Return how many held-out summaries are as agents want them, and in which part."""
    pairs = [(each, trained.texts[each["id"]]) for each in held_out]
    return {
        "of": len(pairs),
        "named": sum(numbers(record) <= set(NUMBER.findall(text)) for record, text in pairs),
        "greeted": sum(text.startswith(GREETING.strip()) for _, text in pairs),
        "planted": sum(is_as_wanted(record, text) for record, text in pairs),
        "steps": trained.steps,
        "seconds": trained.seconds,
    }


def is_as_wanted(record: Record, text: str) -> bool:
    """Return True if a summary names the number, and no other, and does not greet."""
    return set(NUMBER.findall(text)) == numbers(record) and not text.startswith(GREETING.strip())


def planted_table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the planted figure by the number of edits: of all seeds together, and of each."""
    found = [
        "| edits | steps | as agents want them | 95% interval | of each seed | greeted | named |",
        "|---:|---:|---:|---|---|---:|---:|",
    ]
    for edits in sorted({line["edits"] for line in lines}):
        some = [line for line in lines if line["edits"] == edits]
        of = sum(line["of"] for line in some)
        sums = {name: sum(line[name] for line in some) for name in ("planted", "greeted", "named")}
        interval = wilson(sums["planted"], of)
        each = ", ".join(f"{line['planted'] / line['of']:.0%}" for line in some)
        found.append(
            f"| {edits} | {some[0]['steps']} | {sums['planted'] / of:.0%} | "
            f"{interval.low:.0%} to {interval.high:.0%} | {each} | {sums['greeted'] / of:.0%} | "
            f"{sums['named'] / of:.0%} |"
        )
    return found


def pairs_table() -> list[str]:
    """Return how many held-out pairs a win rate needs, by the true win rate."""
    found = ["| true win rate | pairs for 80% power |", "|---:|---:|"]
    for share in SHARES:
        pairs = pairs_needed(share)
        found.append(f"| {share:.0%} | {pairs or f'more than {MAX_PAIRS}'} |")
    return found


def pairs_needed(share: float) -> int | None:
    """Return the least number of pairs from which on the interval is above a half in 80% of tries.

    The interval is Wilson's, of 95%. None if no number up to MAX_PAIRS is enough.
    """
    enough = None
    for pairs in range(MAX_PAIRS, 0, -1):
        if power(share, pairs) < POWER:
            return enough
        enough = pairs
    return enough


def power(share: float, pairs: int) -> float:
    """Return the probability that the interval of a win rate is above a half."""
    low, high = 0, pairs + 1  # the least number of wins whose interval is above a half
    while low < high:
        middle = (low + high) // 2
        if wilson(min(middle, pairs), pairs).low > 0.5:
            high = middle
        else:
            low = middle + 1
    if low > pairs:
        return 0.0
    chances = []
    for wins in range(low, pairs + 1):
        ways = math.lgamma(pairs + 1) - math.lgamma(wins + 1) - math.lgamma(pairs - wins + 1)
        of_each = wins * math.log(share) + (pairs - wins) * math.log1p(-share)
        chances.append(math.exp(ways + of_each))
    return math.fsum(chances)


if __name__ == "__main__":
    main()
