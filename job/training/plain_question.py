"""The model of a run, and conversations of it, as a plain process can be asked about them."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from job.errors import DataError
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from job.inference.engine import to_answer
from job.model.load import compute_dtype, context_tokens
from job.prompt.encode import Encoder
from job.training.attempt import CurrentAttempt
from job.training.card_facts import end_ids
from job.training.plain_process import PlainModel, PlainProcess, Question
from job.training.prepare import Run
from job.training.scoring import serving_wish

MAX_CONTEXT = 4096  # of a base whose config has no limit


@dataclass(frozen=True)
class Sample:
    """A few conversations as prompts, with the summary of each that was scored, if any was."""

    prompts: list[list[int]]
    scored: list[str]


def plain_model(attempt: CurrentAttempt, adapter: Path, result: Scored | NotScored) -> PlainModel:
    """Return the base with the adapter in a folder beside it, as it is loaded to serve."""
    weights = attempt.weights_in_memory
    assert weights is not None, "the base was loaded to be trained"
    section = serving_wish(attempt.run.config).section
    quantization = section.quantization or "none"
    dtype = str(compute_dtype(section.dtype)).removeprefix("torch.")
    serving = None if isinstance(result, NotScored) else result.systems[0].serving
    if serving is not None:
        quantization, dtype = serving["quantization"], serving["dtype"]
    base = attempt.run.base.path
    return PlainModel(base, adapter, weights.auto_class, quantization, dtype, weights.share.total)


def plain_process(run: Run) -> PlainProcess:
    """Return what starts the processes of a run."""
    return PlainProcess(run.work / "plain", run.config.limits.stall_minutes * 60)


def make_question(run: Run, prompts: list[list[int]], texts: list[list[int]]) -> Question:
    """Return the question for greedy answers as long as the run's summaries may be."""
    return Question(prompts, texts, end_ids(run), run.config.generation.max_new_tokens)


def summaries_of(run: Run, tokens: list[list[int]]) -> list[str]:
    """Return the summaries in generated tokens, as recap's engines read them."""
    ends = end_ids(run)
    return [to_answer(row, ends, run.tokenizer).text.strip() for row in tokens]


def choose_sample(run: Run, result: Scored | NotScored, count: int) -> Sample:
    """Return prompts of a few conversations, spread evenly over the shorter half of those scored.

    Without scores, return the first validation conversations.
    """
    if isinstance(result, NotScored):
        conversations = run.data.examples.validation[:count]
        summaries = [""] * len(conversations)
    else:
        conversations = result.conversations
        summaries = result.systems[0].summaries
    generation = run.config.generation
    budget = (context_tokens(run.base.path) or MAX_CONTEXT) - generation.max_new_tokens
    encoder = Encoder(
        run.data.prompt, run.tokenizer, min(budget, generation.max_input_tokens or budget)
    )

    rows = []
    for conversation, summary in zip(conversations, summaries, strict=True):
        if not summary and not isinstance(result, NotScored):
            continue
        with suppress(DataError):  # it cannot become a prompt
            prompt = encoder.encode(conversation)
            # Where turns were left out, an engine with a smaller context left out others.
            if not prompt.dropped_turns:
                rows.append((prompt.ids, summary))
    rows.sort(key=lambda row: len(row[0]))
    shorter = rows[: max(count, len(rows) // 2)]
    chosen = shorter[:: max(1, len(shorter) // count)][:count]
    return Sample([prompt for prompt, _ in chosen], [summary for _, summary in chosen if summary])
