"""The end of a night, by whichever worker completes it: assemble the output, publish, clean up.

A lease ensures that one worker does this. If it dies, the next one that starts goes on.

Assembling checks that summaries and rejects together are the input, each record once: a chunk has
as many outcomes as it had records when it was cut, and positions only ascend. Ids must be unique in
the whole input, and only here is all of it in sight: a record with an id that an earlier one has
becomes a reject, and ids that recap derived from the content are numbered.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from job.config.data_sections import CleaningStep
from job.config.sections import to_plain
from job.conversations.record import Reject, Source
from job.conversations.redaction import make_redactor, redact_message
from job.environment import describe
from job.errors import RecapError, RetryError
from job.storage.holder import this_process
from job.storage.keys import below
from job.storage.lease import FOLDER as LEASE_FOLDER
from job.storage.lease import GuardedStore, Lease, LeaseHeldError, Terms
from job.storage.open import open_store
from job.summarization.champion import FACT as CHAMPION
from job.summarization.chunk_store import REJECT, ChunkFacts, OutcomeLine, read_lines
from job.summarization.chunks import Chunk, Chunks
from job.summarization.duplicates import Duplicate, IdLog, open_id_log
from job.summarization.faithfulness import score_faithfulness
from job.summarization.identity import CANDIDATES, CHALLENGER
from job.summarization.inputs import check_unchanged
from job.summarization.night import Night
from job.summarization.night_report import NightPage, write_night_report
from job.summarization.output import publish
from job.summarization.quality import FACT as QUALITY
from job.summarization.quality import QualitySample, QualitySums, quality_block
from job.summarization.records import Counts, Position, counts_of_row, reject_row
from job.summarization.rerun import (
    delete_finished_chunks,
    finish_if_done_meanwhile,
    log_night_metrics,
    mark_success_if_same,
    report_or_raise,
)
from job.summarization.reward import reward_facts
from job.summarization.sample import NightSample, SampledSummary
from job.summarization.shard import Shard
from job.summarization.sides import Assignment, Sides
from job.summarization.writers import Write, json_line
from job.telemetry import event, heartbeat, warn

TERMS = Terms()  # of the lease


@dataclass
class Totals:
    """Sums over all chunks. Seconds are those of all workers together.

    The workers of one machine share its seconds.
    """

    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    machine_seconds: float = 0.0
    engines: Counter[str] = field(default_factory=Counter)  # chunks by engine
    departures: Counter[str] = field(default_factory=Counter)  # chunks by departure
    cleaning: tuple[CleaningStep, ...] | None = None  # of all chunks for which a model was loaded

    def add(self, facts: ChunkFacts) -> None:
        """Add the facts of one chunk."""
        self.counts = self.counts.plus(facts.counts)
        self.seconds += facts.seconds
        self.gpu_seconds += facts.seconds * facts.gpus
        self.machine_seconds += facts.seconds / facts.workers
        self.engines[facts.engine] += 1
        self.departures.update(facts.departures)
        if facts.cleaning is not None:
            self.cleaning = facts.cleaning


def finish(night: Night, chunks: Chunks, shard: Shard, work: Path) -> Counts | None:
    """Publish the night if all its chunks are committed, and return its counts.

    Return None if another worker will do it, or does it now. Raise DataError if more records are
    rejected than the limit allows; they are published all the same.
    """
    # Listed after this worker's last commit: of workers that end at once, at least one sees all.
    committed = night.chunk_store(chunks).committed_numbers()
    missing = [chunk.number for chunk in chunks.chunks if chunk.number not in committed]
    if missing:
        return finish_if_done_meanwhile(night, chunks, shard, missing)

    chunks_uri = below(night.output.store.uri, night.output.chunks)
    lease_store = open_store(chunks_uri, night.config.storage)
    lease = Lease(lease_store, this_process(), TERMS)
    try:
        lease.acquire()
    except LeaseHeldError:
        event("this worker is done: another one is putting the output together")
        return None
    try:
        # A store that refuses to write once the lease is lost.
        guarded = GuardedStore(night.output.store, lease)
        night_under_lease = replace(night, output=replace(night.output, store=guarded))

        # The worker that had the lease before may have published the night, and died.
        facts = mark_success_if_same(night_under_lease, chunks.files)
        message = "already done"
        if facts is None:
            facts = _publish(night_under_lease, chunks, work)
            message = "summarized"

        # From here on, whoever runs this night again finds it done, and deletes what is left.
        counts = Counts.from_json(facts["counts"])
        leases = [entry.key for entry in lease_store.list(LEASE_FOLDER)]  # earlier ones too
        delete_finished_chunks(night_under_lease, counts)
    finally:
        lease.release()

    # The leases come last, after the lease is released. They are deleted from the output's store:
    # one rooted at the folder of chunks would leave that folder there, empty.
    for key in leases:
        night.output.store.delete(below(night.output.chunks, key))
    if not counts.records:
        message = "nothing to summarize: 0 records"
    return report_or_raise(message, night, counts)


def _publish(night: Night, chunks: Chunks, work: Path) -> dict[str, Any]:
    """Assemble and publish the output, and return the facts in its manifest."""
    # Files of chunks that were committed hours ago may have changed since.
    check_unchanged(chunks.files)
    folder = work / "output"
    folder.mkdir()
    assembly = _Assembly(night, chunks, work, folder)
    assembly.assemble()
    facts = _facts(night, chunks, assembly)
    if night.config.report:
        cleaning = assembly.totals.cleaning
        pairs = [] if assembly.sides is None else assembly.sides.pairs()
        _write_report(folder, NightPage(night, chunks, facts, assembly.sample, pairs, cleaning))
    publish(night.output, folder, facts)
    log_night_metrics(facts)
    _warn_of_unscored(facts)
    shutil.rmtree(folder)
    return facts


def _warn_of_unscored(facts: dict[str, Any]) -> None:
    """Warn of records whose candidates were paid for, and not chosen among."""
    unscored = facts.get(CANDIDATES, {}).get("unscored")
    if unscored:
        what = "these summaries were not chosen: the reward model scored none of their candidates"
        warn(what, unscored=unscored, summaries=facts["counts"]["summaries"])


def _write_report(folder: Path, page: NightPage) -> None:
    """Write the page about the night. A failure is a warning: no summary may be lost by it."""
    try:
        with heartbeat("writing the report"):
            write_night_report(folder / page.night.output.report, page)
    except Exception as error:
        message = redact_message(str(error), make_redactor(page.night.config.redaction))
        warn("the night is published without its report", why=f"{type(error).__name__}: {message}")


class _Assembly:
    """Assembles the output's files in a folder of this machine, from all committed chunks."""

    def __init__(self, night: Night, chunks: Chunks, work: Path, folder: Path) -> None:
        self.totals = Totals()
        self.sample = NightSample()
        self.quality = QualitySums()
        challenger = night.challenger
        self._choice = None if challenger is None else challenger.choice
        self.sides = None if self._choice is None else Sides(self._choice)
        self._quality_sample = QualitySample.of(chunks.records)
        self.measured: list[SampledSummary] = []  # if a classifier is to score them
        self._night = night
        self._chunks = chunks
        self._store = night.chunk_store(chunks)
        self._work = work
        self._folder = folder
        self._last = Position(0, 0)  # of the records so far

    def assemble(self) -> None:
        """Fetch and check the outcomes of every chunk, and write the output's files."""
        with open_id_log(self._work / "ids") as ids:
            paths = [self._fetch(chunk, ids) for chunk in self._chunks.chunks]
            changed = self._write(paths, ids.duplicates())
        self.totals.counts = self.totals.counts.plus(changed)
        self._check_count(self._night.output.uri, self._chunks.records, self.totals.counts.records)

    def _fetch(self, chunk: Chunk, ids: IdLog) -> Path:
        """Download the outcomes of a chunk, add their ids to the log, and return their path.

        Raise RecapError if a record of the chunk has two outcomes or none.
        """
        marker = self._store.read_marker(chunk.number)
        if marker is None:
            raise RetryError(
                f"{self._night.output.uri}: chunk {chunk.number} was there and is gone: run again"
            )
        path = self._work / f"{chunk.number:06d}.fetched"
        self._store.fetch_outcomes(marker, path)
        self.totals.add(marker.facts)

        records = 0
        assignment = None if self._choice is None else Assignment(self._choice)
        for line in read_lines(path):
            if assignment is not None and not assignment.accepts(line):
                raise self._not_assigned(chunk)
            if line.is_shadow:
                continue
            # Positions ascend over all chunks, so this finds a record that is in two chunks too.
            position = line.position
            if position <= self._last:
                source = self._source(position)
                raise RecapError(
                    f"chunk {chunk.number}: {source} has two outcomes: {self._night.remedy()}"
                )
            self._last = position
            records += 1
            if line.id_digits:
                ids.add(line.id_digest, position, line.is_derived)
        if assignment is not None and not assignment.is_complete:
            raise self._not_assigned(chunk)
        self._check_count(f"chunk {chunk.number}", chunk.records, records)
        return path

    def _not_assigned(self, chunk: Chunk) -> RecapError:
        return RecapError(
            f"chunk {chunk.number}: an outcome is not of the adapter that its id gives the record "
            f"to: {self._night.remedy()}"
        )

    def _write(self, paths: Sequence[Path], duplicates: Iterator[Duplicate]) -> Counts:
        """Write all outcomes to the output's files. Return how duplicate ids change the counts.

        Each file of outcomes is deleted once it is written, so that the disk holds little twice.
        """
        changed = Counts()

        # Outcomes and duplicates both come in the order of the input. They are merged as two sorted
        # streams: `duplicate` is the next one whose record has not been met yet.
        duplicate = next(duplicates, None)
        output = self._night.output
        scores_them = self._night.config.faithfulness_model is not None
        has_candidates = self._night.reward is not None
        csv = self._night.config.csv_output
        summaries = output.write_summaries(self._folder, csv, has_candidates)
        rejects = output.write_rejects(self._folder)
        with summaries as write_summary, rejects as write_reject, self._shadow() as write_shadow:
            for chunk, path in zip(self._chunks.chunks, paths, strict=True):
                for line in read_lines(path):
                    while duplicate is not None and duplicate.position < line.position:
                        duplicate = next(duplicates, None)
                    if duplicate is not None and duplicate.position == line.position:
                        if line.is_shadow and not line.is_derived:
                            continue  # the record is a reject, whatever was made of it
                        resolved = self._resolve(line, duplicate)
                        if not line.is_shadow:
                            changed = changed.plus(_counts(resolved)).minus(_counts(line))
                        line = resolved
                    if line.is_shadow:
                        write_shadow(line.row)
                    else:
                        write = write_summary if line.is_summary else write_reject
                        write(line.row)
                        self.sample.add(line, chunk)
                        if line.figures and self._quality_sample.has(line.id_digest):
                            self.quality.add(line.figures)
                            if line.is_summary and scores_them:
                                row = json.loads(line.row)
                                self.measured.append(SampledSummary(row, chunk, line.position))
                    if self.sides is not None:
                        self.sides.add(line, chunk)
                path.unlink()
        return changed

    def _shadow(self) -> AbstractContextManager[Write]:
        """Open the writer of a shadow; a night without one leaves no such file."""
        if self._choice is None or self._choice.mode == "canary":
            return nullcontext(lambda _row: None)
        return self._night.output.write_shadow(self._folder)

    def _resolve(self, line: OutcomeLine, duplicate: Duplicate) -> OutcomeLine:
        """Return the outcome of a record whose id an earlier record has.

        An id that recap derived gets a number: both are records to summarize. An id that the
        record brought makes it a reject.
        """
        row = json.loads(line.row)
        if line.is_derived:
            numbered = row | {"id": f"{row['id']}-{duplicate.ordinal}"}
            return line._replace(row=json_line(numbered))
        detail = f"id '{row['id']}' is already used at {self._source(duplicate.first)}"
        source = Source(row["source"]["uri"], row["source"]["line"])
        reject = Reject(source, "invalid_record", detail, row["id"])
        return line._replace(kind=REJECT, row=json_line(reject_row(reject)), figures=b"")

    def _source(self, position: Position) -> Source:
        return Source(self._chunks.files[position.file].uri, position.line)

    def _check_count(self, what: str, wanted: int, found: int) -> None:
        """Raise RecapError unless there are as many outcomes as records."""
        if found != wanted:
            raise RecapError(
                f"{what}: {wanted} records, but {found} have an outcome: {self._night.remedy()}"
            )


def _counts(line: OutcomeLine) -> Counts:
    return counts_of_row(json.loads(line.row), line.is_summary)


def _facts(night: Night, chunks: Chunks, assembly: _Assembly) -> dict[str, Any]:
    """Return what the manifest has beside its files."""
    config = night.config
    totals = assembly.totals
    lengths = assembly.sample.summary_lengths()
    counts = totals.counts
    seconds = max(totals.seconds, 1e-3)
    too_many = night.has_too_many_rejects(counts)
    facts: dict[str, Any] = {
        "identity": night.identity(chunks.files),
        "counts": counts.to_json(),
        "run": config.run,
        "state": "too_many_rejects" if too_many else "finished",
        **({CHAMPION: asdict(night.champion)} if night.champion else {}),
        "left_out": {"count": night.left_out.count, "first": night.left_out.first},
        "engines": dict(totals.engines),
        "departures": dict(totals.departures),
        "seconds": round(totals.seconds, 3),
        "gpu_seconds": round(totals.gpu_seconds, 3),
        "records_per_second": round(counts.records / seconds, 3),
        "input_tokens_per_second": round(counts.input_tokens / seconds, 3),
        "output_tokens_per_second": round(counts.output_tokens / seconds, 3),
    }
    if lengths is not None:
        facts["summary_characters"] = asdict(lengths)
    faithfulness = score_faithfulness(night, chunks, assembly.measured, totals.cleaning)
    sample = QualitySample.of(chunks.records)
    facts[QUALITY] = quality_block(assembly.quality, sample, assembly.sample, counts, faithfulness)
    if night.reward is not None:
        facts[QUALITY]["reward_model"] = {"model": night.reward.uri, "digest": night.reward.digest}
        facts[CANDIDATES] = {
            "count": config.generation.candidates,
            "reward": reward_facts(night.reward),
            **assembly.sample.rewards.facts(),
        }
    if config.cost_per_hour is not None:
        cost = totals.machine_seconds / 3600 * config.cost_per_hour
        per_1000 = round(1000 * cost / counts.records, 6) if counts.records else None
        facts["cost"] = round(cost, 6)
        facts["cost_per_1000_records"] = per_1000
    if night.named is not None:
        sides = assembly.sides.facts() if assembly.sides is not None else {}
        facts[CHALLENGER] = {**night.named.facts(), **sides}
    return facts | {"config": to_plain(config), "environment": describe()}
