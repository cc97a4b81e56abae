"""Prompts of many conversations → one answer for each conversation: parts first, then summaries of their summaries.

Every level of a whole window goes to the engine in one call, so that parts of a long conversation are batched with
each other and with everything else. Knows nothing of files or outcomes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from job.conversations.record import Conversation, RejectReason, Source, Turn
from job.inference.each import Done, Failure
from job.inference.engine import FinishReason, Generated
from job.prompt.encode import EncodedPart, TooLongError
from job.summarization.prepare import Prepared, Task

MAX_LEVELS = 6


class Answer(NamedTuple):
    """The text that the last prompt got; tokens of all prompts and answers, and the turns of parts that got no text."""

    text: str
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    dropped_turns: int
    levels: int


@dataclass(frozen=True)
class Unanswered:
    """Why there is no answer."""

    reason: RejectReason
    detail: str


class _Climb(NamedTuple):
    """How far a conversation has come: the prompts of its level, and the sums of the levels below."""

    item: Prepared
    parts: list[EncodedPart]
    level: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    dropped_turns: int = 0
    turns: tuple[
        int, ...
    ] = ()  # of the conversation, in each line of this level's prompts; above the first level


def answer_each(
    prepared: Sequence[Prepared], task: Task, on_done: Done
) -> list[Answer | Unanswered]:
    """An answer for each conversation, or why there is none."""
    settled: dict[int, Answer | Unanswered] = {}
    climbing = {place: _Climb(item, item.parts) for place, item in enumerate(prepared)}
    tell = _by_conversation(on_done, len(prepared), sum(len(item.parts) for item in prepared))
    while climbing:
        prompts = [part.ids for climb in climbing.values() for part in climb.parts]
        sources = [climb.item.source for climb in climbing.values() for _ in climb.parts]
        asked = task.summarizer.engine, prompts, task.generation
        answers = task.suspects.generate(asked, sources, tell, lambda: _greet(task))
        tell = _nobody
        rest = iter(answers)
        steps = {place: _step(climb, rest, task) for place, climb in climbing.items()}
        settled |= {place: step for place, step in steps.items() if not isinstance(step, _Climb)}
        climbing = {place: step for place, step in steps.items() if isinstance(step, _Climb)}
    return [settled[place] for place in range(len(prepared))]


def _greet(task: Task) -> None:
    """Have the model answer a greeting; raises what it raises where it cannot."""
    summarizer = task.summarizer
    greeting = Conversation(
        "greeting", (Turn("customer", "Hello"), Turn("agent", "Hello")), Source("recap", 1)
    )
    ids = summarizer.encoder.encode(greeting).ids
    summarizer.engine.generate([ids], task.generation)


def _step(
    climb: _Climb, answers: Iterator[Generated | Failure], task: Task
) -> _Climb | Answer | Unanswered:
    """What the answers to this level's prompts make of a conversation; takes them all."""
    got = [next(answers) for _ in climb.parts]
    if climb.level == 1 and len(got) == 1 and isinstance(got[0], Generated):  # nearly all of them
        only = got[0]
        return Answer(
            only.text, only.finish_reason, len(climb.parts[0].ids), only.output_tokens, 0, 1
        )
    texts: list[tuple[str, int]] = []
    covered = iter(climb.turns)
    for number, (part, answer) in enumerate(zip(climb.parts, got, strict=True), 1):
        turns = sum(next(covered) for _ in range(part.turns)) if climb.level > 1 else part.turns
        if isinstance(answer, Failure):
            where = f"part {number} of {len(got)}, level {climb.level}: " if len(got) > 1 else ""
            return Unanswered("generation_failed", f"{where}{answer}")
        text = answer.text.strip()
        texts += [(text, turns)] if text else []
        climb = climb._replace(
            input_tokens=climb.input_tokens + len(part.ids),
            output_tokens=climb.output_tokens + answer.output_tokens,
            dropped_turns=climb.dropped_turns + (0 if text or len(got) == 1 else turns),
        )
    last = got[-1]
    if len(got) == 1 and isinstance(last, Generated):
        return _answer(climb, last)
    return _above(climb, texts, task)


def _answer(climb: _Climb, last: Generated) -> Answer:
    numbers = climb.input_tokens, climb.output_tokens, climb.dropped_turns, climb.level
    return Answer(last.text, last.finish_reason, *numbers)


def _above(climb: _Climb, texts: Sequence[tuple[str, int]], task: Task) -> _Climb | Unanswered:
    """The next level: the summaries of the parts, as a conversation of them."""
    if not texts:
        return Unanswered(
            "empty_summary", f"the model answered each of {len(climb.parts)} parts without text"
        )
    turns = tuple(Turn(f"part {number}", text) for number, (text, _) in enumerate(texts, 1))
    conversation = Conversation(climb.item.id, turns, climb.item.source)
    encoder = task.summarizer.encoder
    most = len(climb.parts) - 1  # fewer at each level, or it would never end
    try:
        parts = encoder.encode_parts(conversation, max(most, 1))
    except TooLongError:
        parts = []
    if not parts or len(parts) > most or (climb.level + 1 == MAX_LEVELS and len(parts) > 1):
        detail = (
            f"the summaries of its {len(climb.item.parts)} parts do not come together in {MAX_LEVELS} levels of "
            f"{encoder.max_tokens} tokens; lower generation.max_new_tokens, or raise max_input_tokens"
        )
        return Unanswered("too_long", detail)
    return climb._replace(
        parts=parts, level=climb.level + 1, turns=tuple(count for _, count in texts)
    )


def _by_conversation(on_done: Done, conversations: int, prompts: int) -> Done:
    """Tells of prompts as their share of the conversations, so that progress ends where the conversations do."""
    done = told = 0

    def tell(count: int) -> None:
        nonlocal done, told
        done += count
        now = done * conversations // prompts
        on_done(now - told)
        told = now

    return tell


def _nobody(_count: int) -> None:
    """Levels above the first have been told of already."""
