"""Nights that are done already, or that another worker completes meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Any

from job.errors import DataError, RetryError
from job.storage.open import InputFile
from job.summarization.chunk_store import delete_chunks
from job.summarization.chunks import Chunks, is_agreed
from job.summarization.existing import find_finished, mark_success
from job.summarization.night import Night
from job.summarization.records import Counts
from job.summarization.shard import Shard
from job.telemetry import event, log_metrics, warn


def finish_if_done(night: Night, files: Sequence[InputFile]) -> Counts | None:
    """Complete an identical night that is there, and return its counts; None if there is none.

    Write its success marker and delete its chunks, if it died before it had. Raise DataError if it
    rejected more records than the limit of this config allows.
    """
    facts = mark_success_if_same(night, files)
    if facts is None:
        return None
    counts = Counts.from_json(facts["counts"])
    had_chunks = delete_finished_chunks(night, counts)

    # A night logs its metrics before it deletes its chunks. If chunks were left, it may have died
    # before it logged them.
    if had_chunks:
        log_night_metrics(facts)
    return report_or_raise("already done", night, counts)


def finish_if_done_meanwhile(
    night: Night,
    chunks: Chunks,
    shard: Shard,
    missing: Sequence[int],
) -> Counts | None:
    """Return the counts of a run of this night that was faster, although chunks are missing here.

    Return None if the missing chunks are those of other workers, who are still at work. Raise
    RetryError if they are not.
    """
    facts = mark_success_if_same(night, chunks.files)
    if facts is not None:
        counts = Counts.from_json(facts["counts"])
        delete_finished_chunks(night, counts)
        return report_or_raise("another run of this night was faster", night, counts)

    uri = night.output.uri
    if not all(shard.leaves(number) for number in missing):
        raise RetryError(f"{uri}: chunks that this worker had committed were taken away: run again")
    if not is_agreed(night.output.store, chunks):
        raise RetryError(
            f"{uri}: another worker recorded another input meanwhile (it changed, or the store "
            "ignores conditional writes): run again"
        )
    event("this worker is done: chunks of other workers are missing", chunks=len(missing))
    return None


def mark_success_if_same(night: Night, files: Sequence[InputFile]) -> Mapping[str, Any] | None:
    """Return the facts in the manifest of an identical night, or None if there is none.

    Write its success marker, unless it rejected too many records.
    """
    manifest = find_finished(night.output, night.identity(files))
    if manifest is None:
        return None
    if not night.has_too_many_rejects(Counts.from_json(manifest.extra["counts"])):
        mark_success(night.output, manifest)
    return manifest.extra


def delete_finished_chunks(night: Night, counts: Counts) -> bool:
    """Delete chunks and pin that are no longer needed. Return True if chunks had been committed.

    A success needs no chunks any more. After too many rejects, those of other settings stay: a
    night with those settings may still replace this one.
    """
    store = night.output.store
    if not night.has_too_many_rejects(counts):
        return delete_chunks(store, night.output.chunks)
    had_chunks = delete_chunks(store, night.output.chunks, night.settings_folder)
    # The manifest names the champion from now on. Whoever deletes that wants the one of now.
    night.unpin()
    return had_chunks


def report_or_raise(message: str, night: Night, counts: Counts) -> Counts:
    """Log how the night ended and return its counts. Raise DataError if it rejected too many."""
    output = night.output
    log = event if counts.records else warn
    log(
        message,
        output=output.uri,
        records=counts.records,
        summaries=counts.summaries,
        rejects=counts.rejected,
        skipped=counts.skipped,
    )
    if not night.has_too_many_rejects(counts):
        return counts
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejects.items())
    with_which = ""
    if night.champion is not None:
        champion = night.champion
        with_which = f", with the champion of now in place of version {champion.version}"
    raise DataError(
        f"{counts.rejected} of {counts.new} records were rejected "
        f"({reasons}), limits.max_reject_fraction allows "
        f"{night.config.limits.max_reject_fraction:.2%}; see {output.store.uri}/{output.rejects}. "
        "The summaries are published, but under this limit the night is no success: mend the "
        f"input, or raise the limit, and run again. To do the same records again{with_which}, "
        f"delete the whole output ({output.summaries}, {output.rejects}, {output.report}, "
        f"{output.manifest}), or name another"
    )


def log_night_metrics(facts: Mapping[str, Any]) -> None:
    """Log the line that becomes metrics, from the facts in a night's manifest.

    It is logged once after a night is published; twice if the night is killed right then.
    """
    counts = Counts.from_json(facts["counts"])
    rejects = {f"rejects_{reason}": (count, "Count") for reason, count in counts.rejects.items()}
    cost = {"cost": (facts["cost"], "None")} if "cost" in facts else {}
    log_metrics(
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
            "gpu_seconds": (facts["gpu_seconds"], "Seconds"),
            "output_tokens_per_second": (facts["output_tokens_per_second"], "None"),
            **cost,
        },
        run=facts["run"],
        state=facts["state"],
    )
