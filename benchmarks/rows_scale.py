"""Measure how a training's data is prepared: rows a second, peak memory, and the second start.

`python benchmarks/rows_scale.py [--conversations N N …]` generates so many conversations (1,000,
10,000 and 100,000; 1,000,000 takes minutes and about 5 GB of disk) and prepares each file three
times, in processes of their own:

- plain: read it, encode one conversation after another, and make a dataset of all rows in memory;
- first: what `recap train` does at its first start;
- second: what it does at its next start, up to the first batch.

Each runs with the demo's tokenizer, which is a real and fast one. Imports, the tokenizer's loading
and the base's digest are not measured. It prints seconds, conversations a second and peak memory,
then the ratios of first and second to plain, which is left out above 100,000 conversations, for
which it needs gigabytes.

It ends with 1, and says why, if a size misses a goal below. It needs the repository's root on
PYTHONPATH, or recap installed from it.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from job.config.commands import TrainConfig

if TYPE_CHECKING:
    from datasets import Dataset

    from job.conversations.record import Conversation
    from job.prompt.encode import Encoder

CONVERSATIONS = [1_000, 10_000, 100_000]
WAYS = ("plain", "first", "second")
MAX_PLAIN = 100_000
DEMO = Path(__file__).parent.parent / "examples" / "demo"
TOKENIZER = DEMO / "base"
TURNS = 8
WORDS_OF_A_TURN = 10
MAX_TOKENS = 2048
BATCH_ROWS = 16

MIN_ROWS_PER_SECOND = 3_000  # encoding, from 10,000 conversations on
MAX_SECOND_START_SECONDS = 2.0  # to the first batch, up to 100,000 conversations
MAX_PEAK_MIB = 8 * 1024


def records(count: int) -> Iterator[dict[str, object]]:
    """Yield conversations of the demo's words, in random order: no two nearly repeat each other.

    They are as long as the demo's.
    """
    rng = random.Random(1)
    with (DEMO / "train.jsonl").open(encoding="utf-8") as file:
        words = [word for line in file for word in json.dumps(json.loads(line)["turns"]).split()]
    words = [word for word in words if word.isalpha()]
    for number in range(count):
        turns = []
        for place in range(TURNS):
            text = " ".join(rng.choices(words, k=WORDS_OF_A_TURN))
            turns.append({"role": ("customer", "agent")[place % 2], "text": f"{text}."})
        summary = " ".join(rng.choices(words, k=2 * WORDS_OF_A_TURN))
        yield {"id": f"c{number}", "turns": turns, "summary": f"{summary}."}


def config_of(source: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "run": "scale",
            "model": {"base": str(TOKENIZER)},
            "data": {"train": str(source)},
            "output": str(source.parent / "runs"),
            "training": {"max_tokens": MAX_TOKENS},
        }
    )


def measure(source: Path, way: str) -> dict[str, float]:
    """Prepare a file in this process, and return times in seconds and peak memory in MiB."""
    from transformers import AutoTokenizer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from job.prompt.encode import Encoder
    from job.prompt.template import make_prompt
    from job.training.examples import read_examples
    from job.training.rows import RowSettings
    from job.training.stored_examples import read_examples_once
    from job.training.stored_rows import encode_once, rows_identity

    config = config_of(source)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id or 0)
    loaded = peak_mib()
    start = time.perf_counter()
    start_cpu = time.process_time()

    examples = read_examples(config) if way == "plain" else read_examples_once(config)
    read = time.perf_counter()
    read_cpu = time.process_time()
    encoder = Encoder(
        make_prompt(config.prompt, tokenizer, examples.cleaning), tokenizer, MAX_TOKENS
    )
    if way == "plain":
        dataset = plain_rows(encoder, examples.train)
        plain_rows(encoder, examples.validation)
    else:
        settings = RowSettings(encoder, "first", max_excluded_fraction=0.0)
        identity = rows_identity(config, examples, TOKENIZER, settings)
        dataset = encode_once(examples, settings, identity, source.parent).train.dataset
    encoded = time.perf_counter()
    encoded_cpu = time.process_time()
    batch = collate([dataset[row] for row in range(BATCH_ROWS)])
    assert len(batch["input_ids"]) == BATCH_ROWS
    return {
        "read_seconds": read - start,
        "encode_seconds": encoded - read,
        "encode_cpu_seconds": encoded_cpu - read_cpu,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "peak_mib": peak_mib(),
        "loaded_mib": loaded,
    }


def plain_rows(encoder: "Encoder", conversations: "Iterable[Conversation]") -> "Dataset":
    """Encode one conversation after another, and return a dataset of all rows in memory."""
    from datasets import Dataset

    rows = []
    for conversation in conversations:
        rows.append(encoder.encode_example(conversation, conversation.references[0]))
    columns = {"input_ids": [row.input_ids for row in rows]}
    return Dataset.from_dict(columns | {"labels": [row.labels for row in rows]})


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(count: int, ways: Iterable[str] = WAYS) -> dict[str, dict[str, float]]:
    """Prepare so many conversations in each of the ways; print and return what `measure` found."""
    found: dict[str, dict[str, float]] = {}
    with TemporaryDirectory(prefix="recap-rows-") as folder:
        source = Path(folder) / "data.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for record in records(count):
                file.write(json.dumps(record) + "\n")
        environment = os.environ | {
            "RECAP_CACHE": f"{folder}/cache",
            "TOKENIZERS_PARALLELISM": "false",  # as `recap train` sets it
        }
        for way in ways:
            if way == "plain" and count > MAX_PLAIN:
                continue
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(source), way],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=environment,
            )
            found[way] = json.loads(done.stdout.splitlines()[-1])
            print(line(count, way, found[way]), flush=True)
    if len(found) == len(WAYS):
        plain = found["plain"]
        encoding = plain["encode_seconds"] / found["first"]["encode_seconds"]
        start = plain["seconds"] / found["second"]["seconds"]
        own = {way: one["peak_mib"] - one["loaded_mib"] for way, one in found.items()}
        print(
            f"{'':9} against plain: encoding {encoding:.1f} times as fast, second start "
            f"{start:.0f} times, memory {own['first'] / max(own['plain'], 1):.2f} of it"
        )
    return found


def line(count: int, way: str, found: dict[str, float]) -> str:
    return (
        f"{count:>9,} {way:7} read {found['read_seconds']:7.2f} s, encode "
        f"{found['encode_seconds']:7.2f} s ({count / found['encode_seconds']:9,.0f} "
        f"conversations/s, "
        f"{count / found['encode_cpu_seconds']:,.0f} per CPU second), to the first batch "
        f"{found['seconds']:7.2f} s ({found['cpu_seconds']:.2f} CPU s), peak "
        f"{found['peak_mib']:,.0f} MiB ({found['loaded_mib']:,.0f} of it libraries)"
    )


def misses(count: int, found: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the goals that a size misses."""
    speed = count / found["first"]["encode_seconds"]
    if count >= 10_000 and speed < MIN_ROWS_PER_SECOND:
        yield f"{count:,}: {speed:,.0f} conversations/s, wanted {MIN_ROWS_PER_SECOND:,}"
    seconds = found["second"]["seconds"]
    if count <= 100_000 and seconds > MAX_SECOND_START_SECONDS:
        yield f"{count:,}: the second start took {seconds:.1f} s, wanted {MAX_SECOND_START_SECONDS}"
    peak = max(found[way]["peak_mib"] for way in ("first", "second"))
    if peak > MAX_PEAK_MIB:
        yield f"{count:,}: {peak:,.0f} MiB, wanted {MAX_PEAK_MIB:,}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, nargs="+", default=CONVERSATIONS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        source, way = arguments.one
        print(json.dumps(measure(Path(source), way)))
        return 0

    from job.environment import describe

    machine: dict[str, Any] = describe()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB")
    missed = []
    for count in arguments.conversations:
        missed += misses(count, run(count))
    for goal in missed:
        print(f"missed: {goal}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
