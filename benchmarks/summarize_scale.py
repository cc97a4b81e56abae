"""Measure `recap summarize` without the model: how fast all else is, and that memory does not grow.

`python benchmarks/summarize_scale.py [--records N N …] [--suffix .jsonl]` generates so many
conversations (100,000 and 1,000,000) and summarizes each file in a process of its own, through the
whole path: listing, cutting, reading, prompting, committing, putting together, verifying. It prints
records per second and peak memory.

A stand-in replaces the model, and its tokenizer gives bytes. One more run of the smallest file has
the demo's tokenizer, which is a real and fast one. A last run has that too, with an engine that
takes 20 ms for a conversation: it shows the share of the time that all else takes.

It ends with 1, and says why, if memory grows, the slower size is too slow, or all else takes too
long. It needs the repository's root on PYTHONPATH, or recap installed from it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.config.commands import SummarizeConfig
from job.environment import describe
from job.summarization.summarize import summarize
from tests.stand_in import NO_WEIGHTS, StandInEngine, stand_in

RECORDS = [100_000, 1_000_000]
WAYS = {
    "bytes": "a token is a byte, answers at once",
    "tokenizer": "a real tokenizer, answers at once",
    "paced": "a real tokenizer, an answer takes 20 ms",
}
TOPICS = ["phone", "parcel", "refund", "flight", "invoice", "router", "booking", "password"]
MAX_GROWTH = 1.10  # of the peak memory, from the smallest file to the largest
MIN_RECORDS_PER_SECOND = 10_000
PACED_RECORDS = 3000
PACE = 50  # records per second of the paced engine
MAX_SHARE_OF_THE_REST = 0.03  # of the time of the paced run
TOKENIZER = Path(__file__).parent.parent / "examples" / "demo" / "base"


def conversations(count: int) -> Iterator[dict[str, object]]:
    """Yield short support conversations, no two of them alike."""
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        said = (
            f"Hello, my {topic} number {number} has not worked since day {number * 7 % 31}. "
            "Can you help me with it?",
            f"I am sorry to hear that. Please restart the {topic} and tell me the code that it "
            "shows, then we see.",
            f"It says {number * 17 + 5} now, and the light is {'green' if number % 3 else 'red'}. "
            "What does that mean?",
            f"That means that the {topic} is registered. It works from {number % 24} o'clock on. "
            "Anything else?",
            "No, thank you very much, that was quick.",
        )
        roles = ("customer", "agent")
        turns = [{"role": roles[place % 2], "text": text} for place, text in enumerate(said)]
        yield {"id": f"c{number}", "turns": turns, "metadata": {"topic": topic}}


def generate(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in conversations(count):
            file.write(json.dumps(record) + "\n")


def measure(source: Path, output: str, base: Path, way: str) -> None:
    """Summarize one file in this process, and print its times and peak memory as JSON."""
    describe()  # loads the libraries of the manifest, which every size needs
    engine = StandInEngine(seconds_each=1 / PACE if way == "paced" else 0)
    engine.prompts_ahead = 1  # as with vLLM, which is so fast that all else counts
    tokenizer = None if way == "bytes" else read_tokenizer()
    loaded = peak_mib()
    start = time.perf_counter()
    cpu = time.process_time()
    counts = summarize(
        SummarizeConfig.model_validate(
            {"run": "scale", "input": str(source), "output": output, "model": {"base": str(base)}}
        ),
        stand_in(engine, tokenizer),
    )
    found = {
        "records": counts.records,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "engine_seconds": engine.seconds,
    }
    print(json.dumps(found | {"peak_mib": peak_mib(), "loaded_mib": loaded}))


def read_tokenizer() -> Any:
    """Return the demo's tokenizer. Only this loads transformers."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TOKENIZER)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(count: int, way: str, suffix: str = "") -> dict[str, float]:
    """Summarize so many records in a process of its own; print and return what `measure` found."""
    with TemporaryDirectory(prefix="recap-scale-") as folder:
        place = Path(folder)
        (place / "base").mkdir()
        (place / "base" / "config.json").write_text("{}")
        (place / "base" / "model.safetensors").write_bytes(NO_WEIGHTS)
        generate(place / "in.jsonl", count)
        size = (place / "in.jsonl").stat().st_size / 2**20
        one = [str(place / "in.jsonl"), f"{place}/out{suffix}", str(place / "base"), way]
        done = subprocess.run(
            [sys.executable, __file__, "--one", *one], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert found["records"] == count
    per_cpu_second = count / found["cpu_seconds"]
    print(
        f"{count:>9,} records ({size:,.0f} MiB): {found['seconds']:7.1f} s, "
        f"{count / found['seconds']:9,.0f} records/s ({per_cpu_second:,.0f} per CPU second), "
        f"peak {found['peak_mib']:,.0f} MiB ({found['loaded_mib']:,.0f} of it libraries): "
        f"{WAYS[way]}",
        flush=True,
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, nargs="+", default=RECORDS)
    parser.add_argument(
        "--suffix",
        choices=["", ".jsonl", ".csv", ".parquet"],
        default="",
        help="one file, or a folder",
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        source, output, base, way = arguments.one
        measure(Path(source), output, Path(base), way)
        return 0
    sizes = [
        run(count, "bytes", arguments.suffix)
        for count in arguments.records
        if "bytes" in arguments.ways
    ]
    real = None
    if "tokenizer" in arguments.ways:
        real = run(min(arguments.records), "tokenizer", arguments.suffix)
    paced = run(PACED_RECORDS, "paced", arguments.suffix) if "paced" in arguments.ways else None
    found = judge(sizes, real, paced)
    for line, is_kept in found:
        print(line if is_kept else f"{line}: MISSED")
    return 0 if all(is_kept for _, is_kept in found) else 1


def judge(
    sizes: Sequence[Mapping[str, float]],
    real: Mapping[str, float] | None,
    paced: Mapping[str, float] | None,
) -> list[tuple[str, bool]]:
    """Return a line for each wanted quantity of these runs, and True if it is as wanted.

    `real` is the run with a real tokenizer.
    """
    found = []
    for what, runs in (("the slowest", sizes), ("with a real tokenizer", [real] if real else [])):
        if runs:
            rate = min(one["records"] / one["seconds"] for one in runs)
            line = f"records per second, {what}: {rate:,.0f} (at least {MIN_RECORDS_PER_SECOND:,})"
            found.append((line, rate >= MIN_RECORDS_PER_SECOND))
    if sizes:
        peaks = [one["peak_mib"] for one in sizes]
        growth = max(peaks) / min(peaks)
        line = f"peak memory largest / smallest: {growth:.3f} (at most {MAX_GROWTH})"
        found.append((line, growth <= MAX_GROWTH))
    if paced:
        share = 1 - paced["engine_seconds"] / paced["seconds"]
        limit = f"at most {MAX_SHARE_OF_THE_REST:.0%}"
        line = f"of the time at {PACE} records/s, not the engine's: {share:.1%} ({limit})"
        found.append((line, share <= MAX_SHARE_OF_THE_REST))
    return found


if __name__ == "__main__":
    sys.exit(main())
