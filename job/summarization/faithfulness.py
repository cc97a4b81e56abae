"""The faithfulness of a night's sampled summaries, by the classifier that its config names.

The worker that finishes the night scores them, once all summaries are there and its engine is no
longer needed. It only describes the night: whatever fails here is a warning.
"""

import math
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from job.config.commands import SummarizeConfig
from job.config.data_sections import CleaningStep
from job.conversations.redaction import make_redactor
from job.errors import RecapError
from job.evaluation.metrics.faithfulness import check_classifier, measure_faithfulness
from job.evaluation.metrics.metric import Sample
from job.evaluation.metrics.models import MetricModel, fetch_metric_model
from job.model.load import free_memory
from job.storage.scratch import cache_folder
from job.summarization.chunk_store import ChunkStore
from job.summarization.chunks import Chunks
from job.summarization.night import Night
from job.summarization.quality import Faithfulness
from job.summarization.read_again import read_again, turns_as_read
from job.summarization.sample import SampledSummary
from job.telemetry import event, warn

KEY = "faithfulness_model"  # of the config
NOTE = "scoring-"  # begins the names of notes that scoring is under way
MAX_DEATHS = 2  # of processes that scored; from then on, the night is published without


def fetch_faithfulness_model(config: SummarizeConfig) -> MetricModel | None:
    """Bring the classifier that the config names to disk; return None if it names none.

    Raise what `fetch_base` raises, and ConfigError for a model that is no such classifier.
    """
    if config.faithfulness_model is None:
        return None
    cache = cache_folder()
    model = fetch_metric_model(KEY, config.faithfulness_model, config.storage, cache)
    check_classifier(model)
    return model


def score_faithfulness(
    night: Night,
    chunks: Chunks,
    summaries: Sequence[SampledSummary],
    cleaning: Sequence[CleaningStep] | None,
) -> Faithfulness | None:
    """Return the scores of these summaries beside their conversations, which are read again.

    Return None without a model or a summary, and if they cannot be scored: a failure is a warning.
    """
    if night.config.faithfulness_model is None or not summaries:
        return None
    store = night.chunk_store(chunks)
    deaths = [name for name in store.names() if name.startswith(NOTE)]
    if len(deaths) >= MAX_DEATHS:
        warn("faithfulness is left out: processes died while they scored it", deaths=len(deaths))
        return None
    try:
        with _note_of_scoring(store):
            return _score(night, chunks, summaries, cleaning)
    except Exception as error:  # of a model, a device or a text that nobody has foreseen
        # A message that is not recap's own may quote a conversation.
        why = str(error) if isinstance(error, RecapError) else type(error).__name__
        warn("faithfulness is left out: it could not be scored", why=why)
        return None


def _score(
    night: Night,
    chunks: Chunks,
    summaries: Sequence[SampledSummary],
    cleaning: Sequence[CleaningStep] | None,
) -> Faithfulness | None:
    found = read_again(chunks, summaries, night)
    redactor = make_redactor(night.config.redaction)
    samples = []
    for summary in summaries:
        conversation = found.get(summary.position)
        turns = turns_as_read(conversation, cleaning, redactor)
        if conversation is not None and turns:
            as_read = conversation._replace(turns=tuple(turns))
            samples.append(Sample(summary.row["summary"], as_read))
    if not samples:
        return None
    free_memory()  # of the engine, which nothing refers to any more
    model = fetch_faithfulness_model(night.config)
    assert model is not None, "the config names one"
    scores = measure_faithfulness(samples, model).tolist()
    known = [score for score in scores if not math.isnan(score)]
    event("faithfulness", summaries=len(known), model=model.base.uri)
    return Faithfulness(known, model.base.uri, model.base.digest)


@contextmanager
def _note_of_scoring(store: ChunkStore) -> Iterator[None]:
    """Leave a note for the duration of the block: it stays if the process is killed in it."""
    name = f"{NOTE}{uuid.uuid4().hex}.json"
    store.write_note(name, {})
    try:
        yield
    finally:
        store.delete_note(name)
