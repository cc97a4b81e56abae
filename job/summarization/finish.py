"""The end of a night, by whichever worker completes it: put together, publish, take the chunks away.

A lease sees to it that one worker does so; if it dies, whoever starts next goes on. Knows nothing of how the chunks
were made.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import to_plain
from job.launch.environment import describe
from job.storage.holder import this_process
from job.storage.keys import below
from job.storage.lease import GuardedStore, Lease, LeaseHeldError, Terms
from job.storage.open import open_store
from job.summarization.assemble import Assembled, assemble
from job.summarization.commit import committed, remove_all
from job.summarization.output import Output, accept, find_finished, publish
from job.summarization.records import Counts
from job.summarization.worker import Night
from job.telemetry import event, measured

TERMS = Terms()


def finish(night: Night, wanted: dict[str, Any], work: Path) -> Counts | None:
    """Publish the night if all its chunks are committed; None where another worker is to do it, or does it now."""
    missing = len(night.chunks.chunks) - len(committed(night.output.store, night.chunks.folder))
    if missing:
        event("this worker is done: chunks of other workers are missing", chunks=missing)
        return None
    output = night.output
    lease = Lease(open_store(below(output.store.uri, output.chunks), night.config.storage), this_process(), TERMS)
    try:
        lease.acquire()
    except LeaseHeldError:
        event("this worker is done: another one is putting the output together")
        return None
    try:
        counts = already_done(output, wanted, night.config, keep_chunks=True)
        if counts is None:
            counts = _publish(
                replace(night, output=replace(output, store=GuardedStore(output.store, lease))), wanted, work
            )
    finally:
        lease.release()
    remove_all(output.store, output.chunks)
    return counts


def already_done(
    output: Output, wanted: dict[str, Any], config: SummarizeConfig, keep_chunks: bool = False
) -> Counts | None:
    """What an earlier run of the same identity left, where this config's limit allows it."""
    manifest = find_finished(output, wanted)
    if manifest is None:
        return None
    counts = Counts.from_json(manifest.extra["counts"])
    if too_many(counts, config):
        return None
    accept(output, manifest)
    if not keep_chunks:  # of a run that was killed as it took them away
        remove_all(output.store, output.chunks)
    tell("already done", output, counts)
    return counts


def too_many(counts: Counts, config: SummarizeConfig) -> bool:
    """Whether more records are rejected than the limit allows."""
    return counts.rejected > config.limits.max_reject_fraction * counts.records


def tell(message: str, output: Output, counts: Counts) -> None:
    """Say how it ended."""
    numbers = {"summaries": counts.summaries, "rejects": counts.rejected, "skipped": counts.skipped}
    event(message, output=output.uri, records=counts.records, **numbers)


def _publish(night: Night, wanted: dict[str, Any], work: Path) -> Counts:
    target = work / "output"
    target.mkdir()
    found = assemble(night, work, target)
    counts = found.counts
    publish(night.output, target, {"identity": wanted, "counts": counts.to_json(), **_facts(night.config, found)})
    shutil.rmtree(target)
    tell("summarized" if counts.records else "nothing to summarize: 0 records", night.output, counts)
    rejects = {f"rejects_{reason}": (count, "Count") for reason, count in counts.rejects.items()}
    measured(
        "summaries",
        {
            "records": (counts.records, "Count"),
            "summaries": (counts.summaries, "Count"),
            "rejects": (counts.rejected, "Count"),
            "skipped": (counts.skipped, "Count"),
            **rejects,
            "input_tokens": (counts.input_tokens, "Count"),
            "output_tokens": (counts.output_tokens, "Count"),
            "seconds": (found.seconds, "Seconds"),
        },
        run=night.config.run,
    )
    return counts


def _facts(config: SummarizeConfig, found: Assembled) -> dict[str, Any]:
    """What the manifest tells besides identity and counts; seconds are of all workers together, on their chunks."""
    counts, seconds = found.counts, max(found.seconds, 1e-3)
    facts: dict[str, Any] = {
        "run": config.run,
        "state": "too_many_rejects" if too_many(counts, config) else "finished",
        "engines": dict(found.engines),
        "seconds": round(found.seconds, 3),
        "gpu_seconds": round(found.gpu_seconds, 3),
        "records_per_second": round(counts.records / seconds, 3),
        "input_tokens_per_second": round(counts.input_tokens / seconds, 3),
        "output_tokens_per_second": round(counts.output_tokens / seconds, 3),
    }
    if config.cost_per_hour is not None:
        cost = found.seconds / 3600 * config.cost_per_hour
        facts["cost"] = round(cost, 6)
        facts["cost_per_1000_records"] = round(1000 * cost / counts.records, 6) if counts.records else None
    return facts | {"config": to_plain(config), "environment": describe()}
