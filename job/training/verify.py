"""Verify the written adapter before anything of it is visible.

A fresh process reloads it as a stranger would, and its summaries are compared with those scored; of
a reward model, its scores with those that recap computed. An adapter that cannot be loaded or
answers otherwise is not published: its files go to a folder without a manifest, which nothing
reads. Where this machine is the reason, as its memory, nothing is known of the adapter: it is
published and says so.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from job.evaluation.reload import REFUSED, Compared, Reload, ReloadError, judge, judge_scores
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from job.printable import printable
from job.storage.local import LocalStore
from job.telemetry import event, warn
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.journal import Danger
from job.training.plain_process import (
    Answers,
    PlainAnswer,
    PlainLoadError,
    PlainModel,
    PlainProcess,
    Question,
)
from job.training.plain_question import (
    ScoredRows,
    choose_sample,
    has_own_code,
    make_question,
    plain_model,
    plain_process,
    plain_reward_model,
    reads_alike,
    summaries_of,
)
from job.training.prepare import Run

SUMMARIES = 5  # to compare: loading costs more than to generate them
OTHER_TOKENIZER = "its tokenizer does not read the prompts as that of the training does"
OTHER_WEIGHTS = "the weights of its adapter are not those that recap scored with"
UNKNOWN_BASE = Reload("not verified", why="run.json does not say any more how the base was loaded")
# As experts, which recap packs and transformers leaves as they are.
OTHER_IN_4_BITS = "transformers alone holds other weights of the base in 4 bits than recap does"
DANGER: Danger = "reloading"
FOLDER = "refused"  # in the run's folder: the files of an adapter that was not published


@contextmanager
def process_ahead(attempt: CurrentAttempt) -> Iterator[PlainProcess]:
    """Yield the process that will reload the adapter, if the config wants it.

    It imports its libraries while the adapter is scored.
    """
    process = plain_process(attempt.run)
    will_reload = attempt.run.config.publish.verify and not attempt.has_crashed_too_often(DANGER)
    with process.started() if will_reload else nullcontext():
        yield process


def verify_adapter(
    attempt: CurrentAttempt, adapter: Path, result: Scored | NotScored, process: PlainProcess
) -> Reload | None:
    """Reload the adapter in a folder, and return what that showed; None if the config wants none.

    Notes it in `attempt`. Raise ReloadError, after its files are kept under `refused/`, if the
    adapter cannot be loaded, or answers otherwise than the scored one.
    """
    return _or_refuse(attempt, adapter, reload_adapter(attempt, adapter, result, process))


def verify_reward_model(
    attempt: CurrentAttempt, adapter: Path, rows: ScoredRows | None, process: PlainProcess
) -> Reload | None:
    """Reload the reward model in a folder, and return what that showed, as `verify_adapter` does.

    `rows` are what recap has scored with it, None if nothing could be.
    """
    reload = partial(_reload_reward_model, attempt, adapter, rows, process)
    return _or_refuse(attempt, adapter, _try(attempt, reload))


def _or_refuse(attempt: CurrentAttempt, adapter: Path, found: Reload | None) -> Reload | None:
    """Return the outcome; keep the adapter's files under `refused/` and raise if it is refused."""
    run = attempt.run
    if found is None:
        return None
    if found.state in REFUSED:
        _keep_refused(run, adapter, found)
        what = "Nobody else could load it"
        if found.state == "different":
            what = "What was written is not what was scored"
        raise ReloadError(
            f"the adapter is not published: it was {found.sentence()}. {what}, which is a bug in "
            "recap or in a library: please report it with the log above. Its files are in "
            f"{run.store.uri}/{FOLDER}; publish.verify: false publishes it all the same"
        )
    if found.state == "not verified":
        warn("the adapter is published without being reloaded", why=found.why)
    return found


def reload_adapter(
    attempt: CurrentAttempt, adapter: Path, result: Scored | NotScored, process: PlainProcess
) -> Reload | None:
    """Reload the adapter in a folder as `verify_adapter` does, and return what that showed."""
    return _try(attempt, partial(_reload, attempt, adapter, result, process))


def _try(attempt: CurrentAttempt, reload: Callable[[], Reload]) -> Reload | None:
    """Return the outcome of a reload if the config wants one, and note it in `attempt`."""
    if not attempt.run.config.publish.verify:
        return None
    if attempt.has_crashed_too_often(DANGER):
        found = Reload("not verified", why=f"{MAX_CRASHES} attempts ended while it was reloaded")
    else:
        with attempt.timed("reload_seconds"), attempt.noting(DANGER):
            found = reload()

    attempt.reload.clear()  # of an attempt before
    attempt.reload.update(found.facts())
    event("reloaded", **found.facts())
    return found


def _reload(
    attempt: CurrentAttempt, adapter: Path, result: Scored | NotScored, process: PlainProcess
) -> Reload:
    run = attempt.run
    if attempt.weights_in_memory is None:
        return UNKNOWN_BASE
    sample = choose_sample(run, result, SUMMARIES)
    texts = [run.tokenizer(text, add_special_tokens=False)["input_ids"] for text in sample.scored]
    serving = None if isinstance(result, NotScored) else result.systems[0].serving
    model = plain_model(attempt, adapter, serving)
    answer = _ask(run, model, make_question(run, sample.prompts, texts), process)
    if isinstance(answer, Reload):
        return answer
    if answer.answers_of_base is None:
        why = "it has no scores" if sample.prompts else "no conversation has a whole prompt"
        return Reload("not compared", versions=answer.versions, why=why)
    if run.config.generation.temperature:
        why = "they were drawn at random"
        return Reload("not compared", versions=answer.versions, why=why)

    def compared(answers: Answers) -> Compared:
        summaries = summaries_of(run, answers.tokens)
        return Compared(sample.scored, list(map(len, texts)), summaries, answers.expected)

    return judge(compared(answer.answers), compared(answer.answers_of_base), answer.versions)


def _reload_reward_model(
    attempt: CurrentAttempt, adapter: Path, rows: ScoredRows | None, process: PlainProcess
) -> Reload:
    run = attempt.run
    if attempt.weights_in_memory is None:
        return UNKNOWN_BASE
    model = plain_reward_model(attempt, adapter)
    asked = rows or ScoredRows([], [], [], "")
    answer = _ask(run, model, make_question(run, asked.prompts, asked.texts), process)
    if isinstance(answer, Reload):
        return answer
    if answer.answers_of_base is None:
        return Reload("not compared", versions=answer.versions, why="no summary was scored")
    if answer.adapter != asked.adapter:
        return Reload("different", versions=answer.versions, why=OTHER_WEIGHTS)
    in_4_bits = attempt.weights_in_memory.share.four_bit
    if model.quantization.startswith("nf4") and answer.answers.four_bit != in_4_bits:
        return Reload("not compared", versions=answer.versions, why=OTHER_IN_4_BITS)
    found, of_base = answer.answers.scores, answer.answers_of_base.scores
    return judge_scores(asked.scores, found, of_base, model.dtype, answer.versions)


def _ask(
    run: Run, model: PlainModel, question: Question, process: PlainProcess
) -> PlainAnswer | Reload:
    """Return the answer of a fresh process, or the outcome if it has none or reads otherwise."""
    try:
        answer = process.ask(model, question)
    except PlainLoadError as error:
        warn("the adapter could not be reloaded", why=printable(str(error)))
        if error.is_of_machine or has_own_code(run):
            return Reload("not verified", why=error.why)
        return Reload("not loaded", why=error.why)
    if not reads_alike(run, question, answer.readings):
        return Reload("different", versions=answer.versions, why=OTHER_TOKENIZER)
    return answer


def _keep_refused(run: Run, adapter: Path, found: Reload) -> None:
    """Copy a refused adapter to the run's folder, without a manifest: nothing reads it there."""
    run.store.write(f"{FOLDER}/reload.json", json.dumps(found.facts(), indent=2).encode())
    for entry in LocalStore(str(adapter)).list():
        run.store.upload(adapter / entry.key, f"{FOLDER}/{entry.key}")
