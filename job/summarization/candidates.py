"""Several candidates of each summary, of which a reward model chooses the one that is written.

Each candidate is drawn with a seed of its own, one after the other: the first with that of the
config, which is what the night would write without others. So a batch has no more rows than
without, and no record's seeds depend on chunks, workers or interruptions.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import isfinite
from typing import NamedTuple

from job.conversations.record import Conversation, Reject, Source
from job.errors import ConfigError, RecapError, unwritable
from job.inference.each import Done, Failure, log_once
from job.inference.levels import Answer, answer_each
from job.summarization.careful_engine import MIN_FAILURES_ALIKE, CarefulEngine
from job.summarization.records import Best, Prepared

# A reward is rounded before anything is chosen: in another batch, its last digits may differ, and
# in 16 bits also one of these. So `generation.deterministic` scores row by row.
DIGITS = 4


class Chosen(NamedTuple):
    """The answer of a record, and how it was chosen; `best` is None where nothing was."""

    answer: Answer | Reject
    best: Best | None = None


class _Texts(NamedTuple):
    """A record with the different texts of its candidates, which are to be scored."""

    source: Source
    conversation: Conversation
    texts: Sequence[str]


def answer_with_candidates(
    engine: CarefulEngine, prepared: Sequence[Prepared], on_done: Done
) -> list[Chosen]:
    """Return the answer of each record: of several candidates, the one of the highest reward.

    `on_done` is called with the number of records of which all candidates have been drawn. Raise
    what `CarefulEngine.generate` raises, and ConfigError if the reward model scores nothing.
    """
    summarizer = engine.loader.load()
    prompts = [item.prompts for item in prepared]
    settings_of_each = engine.settings_of_each
    report = _by_candidate(on_done, len(settings_of_each))
    drawn = []
    for settings in settings_of_each:
        generate = partial(engine.generate, settings=settings)
        drawn.append(answer_each(prompts, generate, summarizer.encoder, report))
    if len(drawn) == 1:
        return [Chosen(answer) for answer in drawn[0]]

    candidates = list(zip(*drawn, strict=True))  # of each record
    asked = [_texts_of(item, found) for item, found in zip(prepared, candidates, strict=True)]
    rewards = _rewards_of_each(engine, asked)
    return [choose(found, by_text) for found, by_text in zip(candidates, rewards, strict=True)]


def choose(candidates: Sequence[Answer | Reject], rewards: dict[str, float]) -> Chosen:
    """Return the candidate of the highest reward, the first of equal ones.

    `rewards` are by text. A candidate that ended by itself comes before any that was cut, one with
    a reward before one without, and anything before an empty answer or none.
    """
    answered = [
        (number, answer)
        for number, answer in enumerate(candidates, 1)
        if isinstance(answer, Answer) and answer.text.strip()
    ]
    if not answered:
        # Nothing to choose from: the record becomes what its first candidate is.
        return Chosen(candidates[0])

    def rank(candidate: tuple[int, Answer]) -> tuple[bool, bool, float, int]:
        number, answer = candidate
        reward = rewards.get(answer.text.strip())
        # Of two equal ones, the smaller number is the larger one here.
        return answer.finish_reason == "stop", reward is not None, reward or 0.0, -number

    number, best = max(answered, key=rank)
    first = candidates[0]
    of_first = rewards.get(first.text.strip()) if isinstance(first, Answer) else None
    found = sorted(rewards.values())
    return Chosen(
        best,
        Best(
            candidates=len(candidates),
            number=number,
            drawn_tokens=sum(each.output_tokens for each in candidates if isinstance(each, Answer)),
            reward=rewards.get(best.text.strip()),
            reward_of_first=of_first,
            lowest_reward=found[0] if found else None,
            highest_reward=found[-1] if found else None,
        ),
    )


def _texts_of(item: Prepared, candidates: Sequence[Answer | Reject]) -> _Texts:
    assert item.conversation is not None, "kept in a night with candidates"
    texts = [each.text.strip() for each in candidates if isinstance(each, Answer)]
    different = dict.fromkeys(text for text in texts if text)
    return _Texts(item.prompts.source, item.conversation, list(different))


def _rewards_of_each(engine: CarefulEngine, asked: Sequence[_Texts]) -> list[dict[str, float]]:
    """Return the rewards of each record by text, without those that have none.

    Records of a batch that fails are scored one by one, as in careful chunks. One that fails alone
    has no rewards. Raise ConfigError if none of the first ones has any.
    """
    if not engine.is_careful:
        try:
            found = _score(engine, asked)
        except Exception as error:
            _raise_if_of_no_record(error)
            log_once(error, len(asked))
        else:
            _check_scores(engine, asked, found)
            return found

    each: list[dict[str, float]] = []
    failures: list[Failure] = []
    for texts in asked:
        rewards = _score_alone(engine, texts)
        if isinstance(rewards, Failure):
            failures.append(rewards)
            rewards = {}
        each.append(rewards)
    _check_scores(engine, asked, each, failures[0] if failures else None)
    return each


def _check_scores(
    engine: CarefulEngine,
    asked: Sequence[_Texts],
    each: Sequence[dict[str, float]],
    failure: Failure | None = None,
) -> None:
    """Raise ConfigError if no summary had a reward yet, and that is no coincidence."""
    engine.has_scored = engine.has_scored or any(each)
    if engine.has_scored:
        return
    engine.unscored += sum(bool(texts.texts) for texts in asked)
    if failure is None and engine.unscored < MIN_FAILURES_ALIKE:
        return
    why = "they do not fit into its max_tokens, or its scores are no numbers in its dtype"
    if failure is not None:
        why = f"the first: {failure}"
    raise ConfigError(
        "generation.reward_model: the reward model scored none of the summaries of "
        f"{engine.unscored} conversations ({why}): correct it, or set generation.candidates: 1"
    )


def _score_alone(engine: CarefulEngine, texts: _Texts) -> dict[str, float] | Failure:
    """Return the rewards of one record by text; in a careful chunk, with a crash note of it."""
    name = engine.name_in_notes(texts.source)
    note: AbstractContextManager[None] = nullcontext()
    if engine.is_careful:
        crashes = engine.notes.crashes.get(name, 0)
        note = engine.notes.records_in_flight([name], crashes_alone=crashes + 1)
    with note:
        try:
            (rewards,) = _score(engine, [texts])
        except Exception as error:
            _raise_if_of_no_record(error)
            log_once(error, 1)
            return Failure.of(error)
    return rewards


def _score(engine: CarefulEngine, asked: Sequence[_Texts]) -> list[dict[str, float]]:
    scorer = engine.loader.load().scorer
    assert scorer is not None, "loaded in a night with candidates"
    conversations: list[Conversation] = []
    summaries: list[str] = []
    for texts in asked:
        conversations += [texts.conversation] * len(texts.texts)
        summaries += texts.texts
    rewards = iter(scorer.score(conversations, summaries))

    found = []
    for texts in asked:
        by_text = {}
        for text, reward in zip(texts.texts, rewards, strict=False):
            if reward is not None and isfinite(reward):
                by_text[text] = round(reward, DIGITS)
        found.append(by_text)
    return found


def _raise_if_of_no_record(error: Exception) -> None:
    """Raise what recap itself raised, and the error of a full disk."""
    if isinstance(error, RecapError) or unwritable(error):
        raise error


def _by_candidate(on_done: Done, candidates: int) -> Done:
    """Scale the progress of candidates to records, so that the bar ends at 100 %."""
    done = 0
    reported = 0

    def report(count: int) -> None:
        nonlocal done, reported
        done += count
        now = done // candidates
        on_done(now - reported)
        reported = now

    return on_done if candidates == 1 else report
