"""The engine that runs the model in this process: any causal language model of transformers.

It batches the prompts of one call by length and token budget, and returns answers in the prompts'
order. The longest go first, so that a batch that does not fit into memory fails at once and not
after an hour. Rows of one batch have similar lengths, since padding is computed for nothing. A
model that answers otherwise beside others gets rows of equal length, or one at a time. On a GPU,
batches grow with the memory that is free. One that does not fit is halved.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from job.config.sections import GenerationSection
from job.errors import is_out_of_memory
from job.inference.budget import TokenBudget, memory_of
from job.inference.decode import Choose, decode, greedy, sampling
from job.inference.engine import Generated, gpu_failed, to_answer
from job.inference.sharing import Sharing, find_sharing
from job.model import Model, Tokenizer
from job.model.control_tokens import end_tokens
from job.model.families import max_positions

T = TypeVar("T")
Decode = Callable[[Model, Sequence[list[int]], frozenset[int], int, Choose], list[list[int]]]


@dataclass(frozen=True)
class BatchLimits:
    """Limits of a batch: tokens with padding and answers, and rows. A longer row goes alone."""

    tokens: int
    rows: int
    new_tokens: int  # reserved in each row for its answer
    sharing: Sharing = Sharing.ALL


class TransformersEngine:
    """An `Engine` over a loaded model and its tokenizer. Learns how many tokens fit in memory."""

    prompts_ahead = 0  # a batch ends before the next begins

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        decode: Decode = decode,
        budget: TokenBudget | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._decode = decode
        self._ends = end_tokens(tokenizer, getattr(model, "generation_config", None))
        self._vocabulary: int = model.get_input_embeddings().num_embeddings
        self._budget = budget or TokenBudget(memory_of(model.device))
        self._sharing: Sharing | None = None  # None until there are several prompts

        self.context_tokens: int = max_positions(model.config) or tokenizer.model_max_length

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return an answer to each prompt, in order.

        An answer ends early at any end token of the tokenizer or the model's generation config.
        Raise ValueError, before any work, for a token that is not in the vocabulary;
        whatever torch raises if a single row does not fit; RetryError if the GPU itself fails.
        """
        for prompt in prompts:
            self._check_vocabulary(prompt)
        if self._sharing is None and len(prompts) > 1 and not settings.deterministic:
            with _errors_of_gpu():
                self._sharing = find_sharing(self._model, max(prompts, key=len))

        choose = self._choose(settings)
        order = longest_first([len(prompt) for prompt in prompts])
        lengths = [len(prompts[row]) for row in order]
        answers: dict[int, Generated] = {}
        while len(answers) < len(prompts):
            start = len(answers)
            count = count_fitting(lengths[start:], self._limits(settings))
            rows = order[start : start + count]
            if settings.deterministic:
                # What is drawn must not depend on the prompts before.
                choose = self._choose(settings)

            tokens = self._decode_or_shrink([prompts[row] for row in rows], settings, choose)
            if tokens is None:
                continue

            batch = [to_answer(row, self._ends, self._tokenizer) for row in tokens]
            answers.update(zip(rows, batch, strict=True))
            if on_done:
                on_done(len(rows))
        return [answers[row] for row in range(len(prompts))]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Do nothing: this engine asks for no prompts ahead."""

    def _check_vocabulary(self, prompt: Sequence[int]) -> None:
        """Raise ValueError for an id outside of the vocabulary.

        A GPU that looks up such an id fails for good: its process can do nothing more with it.
        """
        if prompt and not 0 <= min(prompt) <= max(prompt) < self._vocabulary:
            strange = next(id for id in prompt if not 0 <= id < self._vocabulary)
            raise ValueError(
                f"token {strange} is not among the {self._vocabulary} of the model's vocabulary",
            )

    def _choose(self, settings: GenerationSection) -> Choose:
        if settings.temperature == 0:
            return greedy
        return sampling(settings, self._model.device)

    def _limits(self, settings: GenerationSection) -> BatchLimits:
        sharing = self._sharing or Sharing.ALL
        if settings.deterministic:
            # Beside others, a row is computed by other kernels, which round otherwise.
            sharing = Sharing.NONE
        tokens = self._budget.limit(settings.max_batch_tokens)
        return BatchLimits(tokens, settings.max_batch_size, settings.max_new_tokens, sharing)

    def _decode_or_shrink(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        choose: Choose,
    ) -> list[list[int]] | None:
        """Return new tokens by row. If memory runs out, halve the budget and return None.

        Raise whatever torch raises for a batch of one row, RetryError if the GPU itself fails.
        """
        lengths = [len(prompt) for prompt in prompts]
        new_tokens = settings.max_new_tokens
        return compute_or_shrink(
            self._budget,
            len(prompts),
            (len(lengths) * lengths[0], padded_tokens(lengths, new_tokens)),
            lambda: self._decode(self._model, prompts, self._ends, new_tokens, choose),
        )


def compute_or_shrink(
    budget: TokenBudget, rows: int, tokens: tuple[int, int], compute: Callable[[], T]
) -> T | None:
    """Return what `compute` finds for a batch. If memory runs out, halve the budget; return None.

    `tokens` are those that the batch begins with, and all that it has in the end, both with
    padding. Raise whatever torch raises for one row, RetryError if the GPU itself fails.
    """
    import torch

    begun, padded = tokens
    try:
        with _errors_of_gpu():
            budget.begin()
            found = compute()
            budget.succeed(begun, padded)
            return found
    except Exception as error:
        if not is_out_of_memory(error) or rows == 1:
            raise

    # Not within the handler: the exception refers to the frames that it passed through, and they
    # hold the batch's tensors. Only here can their memory be freed.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    budget.fail(padded, rows)
    return None


@contextmanager
def _errors_of_gpu() -> Iterator[None]:
    """Raise RetryError in place of the error of a GPU that fails, unless its memory ran out."""
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        if is_out_of_memory(error):
            raise
        raise gpu_failed(error) from error


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Return the indices of `lengths` by descending length; equal ones keep their order."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def count_fitting(lengths: Sequence[int], limits: BatchLimits) -> int:
    """Return how many of the first rows make the next batch, at least 1.

    `lengths` descends and is not empty.
    """
    fitting = limits.tokens // padded_tokens(lengths[:1], limits.new_tokens)
    count = max(1, min(fitting, limits.rows, len(lengths)))
    if limits.sharing is Sharing.EQUAL:
        return lengths[:count].count(lengths[0])
    return 1 if limits.sharing is Sharing.NONE else count


def padded_tokens(lengths: Sequence[int], new_tokens: int) -> int:
    """Return the tokens of a padded batch: each row is as long as the first, plus its answer.

    `lengths` descends and is not empty.
    """
    return len(lengths) * (lengths[0] + new_tokens)
