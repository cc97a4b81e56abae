"""The end of a night, by whichever worker completes it: put together, publish, take the chunks away.

A lease sees to it that one worker does so; if it dies, whoever starts next goes on. Knows nothing of how the chunks
were made.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import to_plain
from job.environment import describe
from job.errors import DataError, RetryError
from job.storage.holder import this_process
from job.storage.keys import below
from job.storage.lease import FOLDER as LEASE
from job.storage.lease import GuardedStore, Lease, LeaseHeldError, Terms
from job.storage.open import open_store
from job.summarization.assemble import Assembled, assemble
from job.summarization.chunks import check_unchanged, is_agreed
from job.summarization.commit import committed, names_in, remove_all
from job.summarization.output import Output, accept, find_finished, publish
from job.summarization.records import Counts
from job.summarization.shard import Shard
from job.summarization.worker import Night
from job.telemetry import event, measured, warn

TERMS = Terms()


def already_done(
    output: Output, wanted: dict[str, Any], config: SummarizeConfig, settings: str
) -> Counts | None:
    """What an earlier run of the same identity left; DataError if it rejected more than this config's limit allows.

    `settings` is the folder of all chunks made with these settings.
    """
    facts = _accepted(output, wanted, config)
    if facts is None:
        return None
    counts = Counts.from_json(facts["counts"])
    if _clear(
        output, counts, config, settings
    ):  # that run was killed as it took them away, or before it told
        _measure(facts)
    return _told("already done", output, counts, config)


def finish(night: Night, shard: Shard, wanted: dict[str, Any], work: Path) -> Counts | None:
    """Publish the night if all its chunks are committed; None where another worker is to do it, or does it now.

    DataError where more records are rejected than the limit allows; they are published all the same.
    """
    there = committed(names_in(night.output.store, night.chunks.folder))
    missing = [chunk.number for chunk in night.chunks.chunks if chunk.number not in there]
    if missing:
        return _finished_meanwhile(night, shard, wanted, missing)
    place = open_store(below(night.output.store.uri, night.output.chunks), night.config.storage)
    lease = Lease(place, this_process(), TERMS)
    try:
        lease.acquire()
    except LeaseHeldError:
        event("this worker is done: another one is putting the output together")
        return None
    try:
        output = replace(night.output, store=GuardedStore(night.output.store, lease))
        facts = _accepted(output, wanted, night.config)
        message = "already done" if facts else "summarized"
        if facts is None:
            check_unchanged(night.chunks.files)
            facts = _publish(replace(night, output=output), wanted, work)
            _measure(facts)
        counts = Counts.from_json(facts["counts"])
        leases = [entry.key for entry in place.list(LEASE)]  # this one, and those before it
        _clear(output, counts, night.config, night.chunks.settings)
    finally:
        lease.release()
    for key in leases:
        # By the output's store: one rooted at the folder of chunks would leave that folder, empty.
        night.output.store.delete(below(night.output.chunks, key))
    return _told(
        message if counts.records else "nothing to summarize: 0 records",
        night.output,
        counts,
        night.config,
    )


def too_many(counts: Counts, config: SummarizeConfig) -> bool:
    """Whether more records are rejected than the limit allows, of those that were not skipped."""
    return counts.rejected > config.limits.max_reject_fraction * (counts.records - counts.skipped)


def _finished_meanwhile(
    night: Night, shard: Shard, wanted: dict[str, Any], missing: list[int]
) -> Counts | None:
    """What another run of this night published, taking chunks away; None where other workers are still at theirs."""
    output, settings = night.output, night.chunks.settings
    facts = _accepted(output, wanted, night.config)
    if facts is not None:
        counts = Counts.from_json(facts["counts"])
        _clear(output, counts, night.config, settings)
        return _told("another run of this night was faster", output, counts, night.config)
    if any(shard.takes(number) for number in missing):
        raise RetryError(
            f"{output.uri}: chunks that this worker had committed were taken away: run again"
        )
    if not is_agreed((output.store, settings), night.chunks):
        raise RetryError(
            f"{output.uri}: another worker recorded another input meanwhile (it changed, or the store ignores "
            "conditional writes): run again"
        )
    event("this worker is done: chunks of other workers are missing", chunks=len(missing))
    return None


def _accepted(
    output: Output, wanted: dict[str, Any], config: SummarizeConfig
) -> Mapping[str, Any] | None:
    """What the manifest of a run of this identity tells; from now on it is a success, unless too many were rejected."""
    manifest = find_finished(output, wanted)
    if manifest is None:
        return None
    if not too_many(Counts.from_json(manifest.extra["counts"]), config):
        accept(output, manifest)
    return manifest.extra


def _clear(output: Output, counts: Counts, config: SummarizeConfig, settings: str) -> bool:
    """Take away the chunks that can be published here no more; whether any were committed.

    After a success those are all, after too many rejects only those of the same settings: others may go on.
    """
    return remove_all(output.store, output.chunks, settings if too_many(counts, config) else None)


def _told(message: str, output: Output, counts: Counts, config: SummarizeConfig) -> Counts:
    """Say how it ended: the counts, or DataError."""
    numbers = {"summaries": counts.summaries, "rejects": counts.rejected, "skipped": counts.skipped}
    log = event if counts.records else warn
    log(message, output=output.uri, records=counts.records, **numbers)
    if not too_many(counts, config):
        return counts
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejects.items())
    raise DataError(
        f"{counts.rejected} of {counts.records - counts.skipped} records were rejected ({reasons}), "
        f"limits.max_reject_fraction allows {config.limits.max_reject_fraction:.2%}; see "
        f"{output.store.uri}/{output.rejects}. The summaries are there, but not as a success: mend the input, or raise "
        f"the limit, and run again; only with {output.manifest} removed are the same records done anew"
    )


def _publish(night: Night, wanted: dict[str, Any], work: Path) -> Mapping[str, Any]:
    target = work / "output"
    target.mkdir()
    found = assemble(night, work, target)
    facts = {"identity": wanted, "counts": found.counts.to_json(), **_facts(night, found)}
    publish(night.output, target, facts)
    shutil.rmtree(target)
    return facts


def _measure(facts: Mapping[str, Any]) -> None:
    """The line that becomes metrics: once after a night is published, twice where it is killed just then."""
    counts = Counts.from_json(facts["counts"])
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
            "seconds": (facts["seconds"], "Seconds"),
        },
        run=facts["run"],
    )


def _facts(night: Night, found: Assembled) -> dict[str, Any]:
    """What the manifest tells besides identity and counts; seconds are of all workers together, on their chunks."""
    config = night.config
    counts, seconds = found.counts, max(found.seconds, 1e-3)
    facts: dict[str, Any] = {
        "run": config.run,
        "state": "too_many_rejects" if too_many(counts, config) else "finished",
        "left_out": {"count": night.left_out.count, "first": night.left_out.first},
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
        facts["cost_per_1000_records"] = (
            round(1000 * cost / counts.records, 6) if counts.records else None
        )
    return facts | {"config": to_plain(config), "environment": describe()}
