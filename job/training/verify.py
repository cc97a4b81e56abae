"""Verify the written adapter before anything of it is visible.

A fresh process reloads it as a stranger would, and its summaries are compared with those scored. An
adapter that answers otherwise is not published: its files go to a folder without a manifest, which
nothing reads. An adapter that cannot be reloaded here, as for memory, is published and says so.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from job.errors import DataError
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from job.inference.engine import to_answer
from job.model.load import compute_dtype, context_tokens
from job.prompt.encode import Encoder
from job.storage.local import LocalStore
from job.telemetry import event, warn
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.card_facts import end_ids
from job.training.plain_process import (
    Answers,
    PlainLoadError,
    PlainModel,
    PlainProcess,
    Question,
)
from job.training.prepare import Run
from job.training.reload import Compared, Reload, ReloadError, judge

SUMMARIES = 5  # to compare: loading costs more than to generate them
REFUSED = "refused"  # in the run's folder: the files of an adapter that was not published
MAX_CONTEXT = 4096  # of a base whose config has no limit


@dataclass(frozen=True)
class Sample:
    """A few conversations as prompts, with the summary of each that was scored, if any was."""

    prompts: list[list[int]]
    scored: list[str]


def verify_adapter(
    attempt: CurrentAttempt, adapter: Path, result: Scored | NotScored
) -> Reload | None:
    """Reload the adapter in a folder, and return what that showed; None if the config wants none.

    Notes it in `attempt`. Raise ReloadError, after its files are kept under `refused/`, if the
    adapter answers otherwise than the scored one.
    """
    run = attempt.run
    if not run.config.publish.verify:
        return None
    if attempt.has_crashed_too_often("reloading"):
        found = Reload("not verified", why=f"{MAX_CRASHES} attempts ended while it was reloaded")
    else:
        with attempt.timed("reload_seconds"), attempt.noting("reloading"):
            found = _reload(attempt, adapter, result)

    attempt.reload.update(found.facts())
    event("reloaded", **found.facts())
    if found.state == "different":
        _keep_refused(run, adapter, found)
        raise ReloadError(
            f"the adapter is not published: it was {found.sentence()}. What was written is not "
            "what was scored, which is a bug in recap or in a library: please report it. Its files "
            f"are in {run.store.uri}/{REFUSED}; publish.verify: false publishes it all the same"
        )
    if found.state == "not verified":
        warn("the adapter is published without being reloaded", why=found.why)
    return found


def _reload(attempt: CurrentAttempt, adapter: Path, result: Scored | NotScored) -> Reload:
    run = attempt.run
    generation = run.config.generation
    sample = choose_sample(run, result)
    if not sample.prompts:
        return Reload("not verified", why="no conversation has a prompt")
    ends = end_ids(run)
    texts = [run.tokenizer(text, add_special_tokens=False)["input_ids"] for text in sample.scored]
    process = PlainProcess(run.work / "reload", run.config.limits.stall_minutes * 60)
    question = Question(sample.prompts, texts, ends, generation.max_new_tokens)
    try:
        answer = process.ask(plain_model(attempt, adapter, result), question)
    except PlainLoadError as error:
        warn("the adapter could not be reloaded", why=str(error))
        return Reload("not verified", why=error.why)

    if answer.answers_of_base is None:
        return Reload("not compared", versions=answer.versions, why="it has no scores")
    if generation.temperature:
        why = "they were drawn at random"
        return Reload("not compared", versions=answer.versions, why=why)

    def compared(answers: Answers) -> Compared:
        summaries = [to_answer(row, ends, run.tokenizer).text.strip() for row in answers.tokens]
        return Compared(sample.scored, list(map(len, texts)), summaries, answers.expected)

    return judge(compared(answer.answers), compared(answer.answers_of_base), answer.versions)


def plain_model(
    attempt: CurrentAttempt, adapter: Path | None, result: Scored | NotScored
) -> PlainModel:
    """Return the base, with the adapter in a folder beside it, as it was loaded to be scored."""
    weights = attempt.weights_in_memory
    assert weights is not None, "the base was loaded to be trained"
    quantization = weights.quantization
    dtype = str(compute_dtype(attempt.run.config.model.dtype)).removeprefix("torch.")
    serving = None if isinstance(result, NotScored) else result.systems[0].serving
    if serving is not None:
        quantization, dtype = serving["quantization"], serving["dtype"]
    base = attempt.run.base.path
    return PlainModel(base, adapter, weights.auto_class, quantization, dtype, weights.share.total)


def choose_sample(run: Run, result: Scored | NotScored) -> Sample:
    """Return prompts of a few conversations, spread evenly over the shorter half of those scored.

    Without scores, return one of any conversation.
    """
    generation = run.config.generation
    budget = (context_tokens(run.base.path) or MAX_CONTEXT) - generation.max_new_tokens
    encoder = Encoder(
        run.data.prompt, run.tokenizer, min(budget, generation.max_input_tokens or budget)
    )
    if isinstance(result, NotScored):
        candidates = [(conversation, "") for conversation in run.data.examples.validation[:1]]
    else:
        candidates = list(zip(result.conversations, result.systems[0].summaries, strict=True))

    rows = []
    for conversation, summary in candidates:
        with suppress(DataError):  # such a conversation has an empty summary
            prompt = encoder.encode(conversation)
            # Where turns were left out, an engine with a smaller context left out others.
            if isinstance(result, NotScored) or (summary and not prompt.dropped_turns):
                rows.append((prompt.ids, summary))
    rows.sort(key=lambda row: len(row[0]))
    shorter = rows[: max(SUMMARIES, len(rows) // 2)]
    chosen = shorter[:: max(1, len(shorter) // SUMMARIES)][:SUMMARIES]
    return Sample([prompt for prompt, _ in chosen], [summary for _, summary in chosen if summary])


def _keep_refused(run: Run, adapter: Path, found: Reload) -> None:
    """Copy a refused adapter to the run's folder, without a manifest: nothing reads it there."""
    run.store.write(f"{REFUSED}/reload.json", json.dumps(found.facts(), indent=2).encode())
    for entry in LocalStore(str(adapter)).list():
        run.store.upload(adapter / entry.key, f"{REFUSED}/{entry.key}")
