"""A deterministic night leaves the same bytes whatever its shards and stops."""

from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.summarization.shard import Shard
from job.summarization.summarize import summarize
from tests.summarization.conftest import conversation, write_lines
from tests.summarization.nights import Wrapped, at_call, with_engine

STOPS = (0, 1, 5)  # calls of the engine that were answered before
GENERATION = {"max_new_tokens": 12, "deterministic": True, "temperature": 0.7}


def contents(config: SummarizeConfig) -> list[bytes]:
    """Return the summaries and the rejects of a finished night."""
    folder = Path(config.output)
    return [(folder / name / "part-00000.jsonl").read_bytes() for name in ("parts", "rejects")]


def stop() -> None:
    raise KeyboardInterrupt


def stopping(call: int) -> Any:
    """Return an opener of the real summarizer; a stop arrives at this call of its engine."""
    before = at_call(call, stop)
    return with_engine(lambda engine: Wrapped(engine, lambda _prompts: before()))


def test_a_deterministic_night_has_the_same_bytes_after_shards_and_stops(config, tmp_path):
    records = [conversation(f"c{n}", "late " * (n % 7 + 1), f"parcel {n}") for n in range(14)]
    write_lines(tmp_path / "in.jsonl", records)

    def night(name: str) -> SummarizeConfig:
        return config(output=str(tmp_path / name), chunks={"records": 2}, generation=GENERATION)

    whole = night("whole")
    assert summarize(whole).records == 14

    shared = night("shared")
    for index in range(3):
        summarize(shared, shard=Shard(index, 3))
    assert contents(shared) == contents(whole)

    stopped = night("stopped")
    for call in STOPS:
        with pytest.raises(KeyboardInterrupt):
            summarize(stopped, stopping(call))
    summarize(stopped)
    assert contents(stopped) == contents(whole)
