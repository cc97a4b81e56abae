"""The task of a worker: the engines of its adapters, and what earlier attempts have left."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from job.config.sections import as_list
from job.conversations.redaction import make_redactor
from job.summarization.careful_engine import CarefulEngine
from job.summarization.chunk_store import ChunkFacts, ChunkStore
from job.summarization.chunks import Chunks
from job.summarization.crash_notes import CrashNotes
from job.summarization.identity import hash_identity_of_challenger, hash_settings
from job.summarization.night import Night
from job.summarization.prepare import ChallengerTask, Task
from job.summarization.quality import QualitySample
from job.summarization.skip_done import read_done_digests
from job.summarization.summarizer import Summarizer, SummarizerLoader

MAX_MARKERS_READ = 5  # to find out whether the model has answered in this night


def make_task(
    night: Night,
    chunks: Chunks,
    store: ChunkStore,
    notes: CrashNotes,
    committed: Iterable[int],
    open_summarizer: Callable[[], Summarizer],
) -> Task:
    """Read what earlier attempts and earlier outputs have done, and load the summarizer.

    It is loaded later, when a record first needs it, if earlier outputs have done records.
    """
    config = night.config

    # Before the model is loaded: a mistake in skip_done is found at once.
    digests = read_done_digests(as_list(config.skip_done or []), config.storage)

    def open_with_note() -> Summarizer:
        with notes.model_loading():
            return open_summarizer()

    loader = SummarizerLoader(open_with_note)
    if not digests:
        loader.load()  # before the progress begins
    numbers = sorted(committed)[:MAX_MARKERS_READ]
    return Task(
        engine=CarefulEngine(
            loader,
            config.generation,
            notes=notes,
            has_answered=any(facts.counts.summaries > 0 for facts in _read_facts(store, numbers)),
        ),
        long_conversations=config.long_conversations,
        cut_summaries=config.cut_summaries,
        redactor=make_redactor(config.redaction),
        settings=hash_settings(config, night.digests),
        done_before=digests,
        # Of the whole night, so that any number of workers and chunks has the same sample.
        quality=QualitySample.of(chunks.records),
        challenger=_challenger_task(night, chunks, notes, loader, _read_facts(store, numbers)),
    )


def _challenger_task(
    night: Night,
    chunks: Chunks,
    notes: CrashNotes,
    loader: SummarizerLoader,
    committed: Iterable[ChunkFacts],
) -> ChallengerTask | None:
    """Return the task of the challenger, whose summarizer comes with that of the adapter."""
    challenger = night.challenger
    settings = hash_identity_of_challenger(night.identity([]))
    if challenger is None or settings is None:
        return None

    def open_challenger() -> Summarizer:
        summarizer = loader.load().challenger
        assert summarizer is not None, "it was opened with the adapter's"
        return summarizer

    engine = CarefulEngine(
        SummarizerLoader(open_challenger),
        night.config.generation,
        notes,
        has_answered=any(facts.has_challenger_summaries for facts in committed),
        is_shadow=challenger.choice.mode == "shadow",
    )
    chosen = challenger.choice.count(chunks.records)
    return ChallengerTask(
        challenger.choice, challenger.digest, engine, settings, QualitySample.of(chosen)
    )


def _read_facts(store: ChunkStore, numbers: Sequence[int]) -> Iterator[ChunkFacts]:
    """Yield the facts of these committed chunks; reads a marker only once it is asked for."""
    for number in numbers:
        marker = store.read_marker(number)
        if marker is not None:
            yield marker.facts
