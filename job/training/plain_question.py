"""The model of a run, and conversations of it, as a plain process can be asked about them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.conversations.record import Conversation
from job.conversations.redaction import PLACEHOLDER, make_redactor
from job.errors import DataError
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from job.inference.engine import to_answer
from job.inference.reader import Reader
from job.model.files import CONFIG, TOKENIZER_CONFIG, files_in_folder, read_json
from job.model.load import compute_dtype, context_tokens
from job.prompt.encode import Encoder
from job.training.attempt import CurrentAttempt
from job.training.card_facts import end_ids
from job.training.plain_load import SCORES
from job.training.plain_process import PlainModel, PlainProcess, Question, Readings
from job.training.prepare import Run
from job.training.scoring import serving_wish
from job.training.validation import split_validation

MAX_CONTEXT = 4096  # of a base whose config has no limit


@dataclass(frozen=True)
class Sample:
    """A few conversations as prompts, with the summary of each that was scored, if any was."""

    prompts: list[list[int]]
    scored: list[str]


@dataclass(frozen=True)
class ScoredRows:
    """A few prompts as ids, each with a summary, end token included, and recap's score of both.

    `adapter` is a digest of the weights that scored them.
    """

    prompts: list[list[int]]
    texts: list[list[int]]
    scores: list[float]
    adapter: str


def plain_model(
    attempt: CurrentAttempt, adapter: Path, serving: Mapping[str, Any] | None
) -> PlainModel:
    """Return the base with the adapter in a folder beside it, as it is loaded to serve.

    `serving` is how it was served when it was scored; without scores, the config decides.
    """
    weights = attempt.weights_in_memory
    assert weights is not None, "the base was loaded to be trained"
    section = serving_wish(attempt.run.config).section
    quantization = section.quantization or "none"
    dtype = str(compute_dtype(section.dtype)).removeprefix("torch.")
    if serving is not None:
        quantization, dtype = serving["quantization"], serving["dtype"]
    base = attempt.run.base.path
    return PlainModel(base, adapter, weights.auto_class, quantization, dtype, weights.share.total)


def plain_reward_model(attempt: CurrentAttempt, adapter: Path) -> PlainModel:
    """Return the base with the reward model in a folder beside it, loaded as it was trained."""
    weights = attempt.weights_in_memory
    assert weights is not None, "the base was loaded to be trained"
    dtype = str(compute_dtype(attempt.run.config.model.dtype)).removeprefix("torch.")
    serving = {"quantization": weights.quantization, "dtype": dtype}
    return replace(plain_model(attempt, adapter, serving), auto_class=SCORES)


def plain_process(run: Run) -> PlainProcess:
    """Return what starts the processes of a run."""
    return PlainProcess(run.work / "plain", run.config.limits.stall_minutes * 60)


def make_question(run: Run, prompts: list[list[int]], texts: list[list[int]]) -> Question:
    """Return the question for greedy answers as long as the run's summaries may be."""
    written = [run.tokenizer.decode(prompt) for prompt in prompts]
    return Question(prompts, written, texts, end_ids(run), run.config.generation.max_new_tokens)


def reads_alike(run: Run, question: Question, found: Readings) -> bool:
    """Return True if a tokenizer read and wrote the prompts as that of the training does."""
    ids = [
        run.tokenizer(text, add_special_tokens=False)["input_ids"] for text in question.prompt_texts
    ]
    return found == Readings(ids, list(question.prompt_texts))


def summaries_of(run: Run, tokens: list[list[int]]) -> list[str]:
    """Return the summaries in generated tokens, as recap's engines read them."""
    ends = end_ids(run)
    return [to_answer(row, ends, run.tokenizer).text.strip() for row in tokens]


def has_own_code(run: Run) -> bool:
    """Return True if the base brings Python of its own, which the process does not run."""
    files = files_in_folder(run.base.path, run.base.uri)
    names = [name for name in (CONFIG, TOKENIZER_CONFIG) if name in files.sizes]
    return any("auto_map" in read_json(files, name) for name in names)


def choose_sample(run: Run, result: Scored | NotScored, count: int) -> Sample:
    """Return prompts of a few conversations, spread evenly over the shorter half of those scored.

    Without scores, return the first validation conversations.
    """
    if isinstance(result, NotScored):
        conversations = run.data.examples.scoring[:count]
        return Sample([prompt for prompt, _ in _spread(run, conversations, None, count)], [])
    rows = _spread(run, result.conversations, result.systems[0].summaries, count)
    return Sample([prompt for prompt, _ in rows], [summary for _, summary in rows])


def choose_prompts(run: Run, count: int) -> list[list[int]]:
    """Return prompts of a few conversations of those that score, as `choose_sample` does."""
    conversations: Sequence[Conversation] = run.data.examples.scoring[:count]
    with suppress(DataError):  # none can be scored
        conversations = split_validation(run.config, run.data.examples.scoring).scoring
    return [prompt for prompt, _ in _spread(run, conversations, None, count)]


def _spread(
    run: Run, conversations: Sequence[Conversation], summaries: Sequence[str] | None, count: int
) -> list[tuple[list[int], str]]:
    """Return a few whole prompts of the shorter half, with their summaries if any are given."""
    generation = run.config.generation
    budget = (context_tokens(run.base.path) or MAX_CONTEXT) - generation.max_new_tokens
    encoder = Encoder(
        run.data.prompt, run.tokenizer, min(budget, generation.max_input_tokens or budget)
    )
    reader = Reader(encoder, redactor=make_redactor(run.config.serve.redaction))

    rows = []
    for row, conversation in enumerate(conversations):
        if summaries is not None and not summaries[row]:
            continue
        with suppress(DataError):  # it cannot become a prompt
            read, prompts = reader.read(conversation)
            summary = "" if summaries is None else summaries[row]
            # Where turns were left out, an engine with a smaller context left out others, or
            # summarized parts. A value that the model made up was redacted in its summary.
            is_as_generated = reader.redactor is None or not _has_made_up_values(summary, read)
            if is_as_generated and not prompts.dropped_turns:
                rows.append((prompts.parts[0].ids, summary))
    rows.sort(key=lambda row: len(row[0]))
    shorter = rows[: max(count, len(rows) // 2)]
    return shorter[:: max(1, len(shorter) // count)][:count]


def _has_made_up_values(summary: str, read: Conversation) -> bool:
    """Return True if the summary has a placeholder that the conversation, as it was read, lacks."""
    given = {found for turn in read.turns for found in PLACEHOLDER.findall(turn.text)}
    return not given.issuperset(PLACEHOLDER.findall(summary))
