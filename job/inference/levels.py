"""From prompts of conversations to one answer for each conversation.

A long conversation has a prompt for each of its parts. The answers to these are its next level: a
conversation of summaries, which is encoded again, until one prompt is left. All prompts of a level,
of all conversations, go to the engine in one call, so that they are batched together.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from job.conversations.record import Conversation, Reject, RejectReason, Source, Turn
from job.inference.each import Done, Failure
from job.inference.engine import FinishReason, Generated, why_only_thought
from job.inference.reader import Prompts
from job.prompt.encode import EncodedPart, Encoder, TooLongError

MAX_LEVELS = 6

# Returns an answer to each prompt, or why it has none. The sources are those of the conversations
# that the prompts are made of.
Generate = Callable[[Sequence[list[int]], Sequence[Source], Done], Sequence[Generated | Failure]]


class Answer(NamedTuple):
    """The answer to the last prompt of a conversation, with sums over all its prompts."""

    text: str
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    dropped_turns: int  # of parts that got no text
    levels: int


class _Progress(NamedTuple):
    """A conversation at one of its levels: the prompts there, and the sums of the levels below."""

    row: int
    item: Prompts
    parts: list[EncodedPart]
    level: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    dropped_turns: int = 0
    # Above the first level, a turn is the summary of a part. These are the numbers of turns of the
    # conversation that each of them covers.
    turns_covered: tuple[int, ...] = ()


def answer_each(
    prompts_of_each: Sequence[Prompts],
    generate: Generate,
    encoder: Encoder,
    on_done: Done,
) -> list[Answer | Reject]:
    """Return an answer for each conversation, or the reject that it is without one.

    `encoder` is the one that made the prompts. `on_done` is called with the number of conversations
    whose prompts of the first level are finished.
    """
    results: dict[int, Answer | Reject] = {}
    unanswered = [_Progress(row, item, item.parts) for row, item in enumerate(prompts_of_each)]
    report = _by_conversation(on_done, unanswered)

    while unanswered:
        # All prompts of the level in one call: an engine batches best what it sees together.
        prompts = []
        sources = []
        for progress in unanswered:
            for part in progress.parts:
                prompts.append(part.ids)
                sources.append(progress.item.source)
        answers = generate(prompts, sources, report)

        # The answers are in the order of the prompts: each conversation takes one for each part.
        higher = []
        start = 0
        for progress in unanswered:
            end = start + len(progress.parts)
            step = _next_step(progress, answers[start:end], encoder)
            start = end
            if isinstance(step, _Progress):
                higher.append(step)
            else:
                results[progress.row] = step
        unanswered = higher

        # The bar is full after the first level: nobody knows how many prompts the next ones have.
        report = _report_nothing
    return [results[row] for row in range(len(prompts_of_each))]


def _next_step(
    progress: _Progress,
    answers: Sequence[Generated | Failure],
    encoder: Encoder,
) -> _Progress | Answer | Reject:
    """Return what the answers to this level's prompts make of a conversation."""
    if len(answers) == 1:
        return _last_answer(progress, answers[0])

    texts: list[str] = []
    turns_covered: list[int] = []
    input_tokens = progress.input_tokens
    output_tokens = progress.output_tokens
    dropped_turns = progress.dropped_turns

    first = 0
    for number, (part, answer) in enumerate(zip(progress.parts, answers, strict=True), 1):
        # A summary without one of its parts would look complete, so there is none.
        if isinstance(answer, Failure):
            detail = f"part {number} of {len(answers)}, level {progress.level}: {answer}"
            return _reject(progress, "generation_failed", detail)
        if answer.is_only_thought:
            why = why_only_thought(answer)
            detail = f"part {number} of {len(answers)}, level {progress.level}: {why}"
            return _reject(progress, "empty_summary", detail)
        input_tokens += len(part.ids)
        output_tokens += answer.output_tokens

        # Above the first level, `part.turns` counts summaries. Translate them to turns of the
        # conversation, so that `dropped_turns` means the same at every level.
        turns = part.turns
        if progress.level > 1:
            turns = sum(progress.turns_covered[first : first + part.turns])
            first += part.turns

        text = answer.text.strip()
        if text:
            texts.append(text)
            turns_covered.append(turns)
        else:
            dropped_turns += turns

    progress = progress._replace(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        dropped_turns=dropped_turns,
        turns_covered=tuple(turns_covered),
    )
    return _next_level(progress, texts, encoder)


def _last_answer(progress: _Progress, answer: Generated | Failure) -> Answer | Reject:
    """Return the result of a conversation whose level has one prompt."""
    if isinstance(answer, Failure):
        return _reject(progress, "generation_failed", str(answer))
    if answer.is_only_thought:
        return _reject(progress, "empty_summary", why_only_thought(answer))
    return Answer(
        answer.text,
        answer.finish_reason,
        progress.input_tokens + len(progress.parts[0].ids),
        progress.output_tokens + answer.output_tokens,
        progress.dropped_turns,
        progress.level,
    )


def _next_level(progress: _Progress, texts: Sequence[str], encoder: Encoder) -> _Progress | Reject:
    """Encode the summaries of the parts as a conversation of their own."""
    if not texts:
        detail = f"the model answered each of {len(progress.parts)} parts without text"
        return _reject(progress, "empty_summary", detail)

    turns = tuple(Turn(f"part {number}", text) for number, text in enumerate(texts, 1))
    conversation = Conversation(progress.item.id, turns, progress.item.source)

    # Each level must have fewer parts than the one below, or it would never end. This is at least
    # 1, because a level of one part was the last.
    max_parts = len(progress.parts) - 1
    try:
        parts = encoder.encode_parts(conversation, max_parts)
    except TooLongError:
        parts = []

    is_last_level = progress.level + 1 == MAX_LEVELS
    if not parts or len(parts) > max_parts or (is_last_level and len(parts) > 1):
        detail = (
            f"the summaries of its {len(progress.item.parts)} parts do not come together in "
            f"{MAX_LEVELS} levels of {encoder.max_tokens} tokens; lower "
            "generation.max_new_tokens, or raise max_input_tokens"
        )
        return _reject(progress, "too_long", detail)
    return progress._replace(parts=parts, level=progress.level + 1)


def _reject(progress: _Progress, reason: RejectReason, detail: str) -> Reject:
    return Reject(progress.item.source, reason, detail, progress.item.id)


def _by_conversation(on_done: Done, unanswered: Sequence[_Progress]) -> Done:
    """Scale the progress of prompts to conversations, so that the bar ends at 100 %."""
    conversations = len(unanswered)
    prompts = sum(len(progress.parts) for progress in unanswered)
    done = 0
    reported = 0

    def report(count: int) -> None:
        nonlocal done, reported
        done += count
        now = done * conversations // prompts
        on_done(now - reported)
        reported = now

    return report


def _report_nothing(_count: int) -> None:
    """Report no progress: only the first level counts."""
