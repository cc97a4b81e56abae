"""The engine that generates with the model in this process: any causal language model that transformers loads.

Prompts of one call → batches by length and token budget → answers in the order of the prompts. A batch that does not
fit into the GPU's memory is halved, and no later one is larger. Knows nothing of files or conversations.
"""

from collections.abc import Callable, Sequence

from job.config.sections import GenerationSection
from job.errors import RetryError
from job.inference.batching import BatchLimits, count_fitting, halved, longest_first
from job.inference.decode import Choose, decode, greedy, sampling
from job.inference.ending import end_tokens, to_answer
from job.inference.engine import Generated
from job.model import Model, Tokenizer
from job.telemetry import warn

Decode = Callable[[Model, Sequence[list[int]], frozenset[int], int, Choose], list[list[int]]]


class TransformersEngine:
    """An `Engine` over a model in memory and its tokenizer. Holds what it learned about the memory's size."""

    prompts_ahead = 0  # its batches end before the next begin

    def __init__(self, model: Model, tokenizer: Tokenizer, decode: Decode = decode) -> None:
        self._model, self._tokenizer, self._decode = model, tokenizer, decode
        self._ends = end_tokens(tokenizer, getattr(model, "generation_config", None))
        self._vocabulary: int = model.get_input_embeddings().num_embeddings
        self._fitting_tokens: int | None = None  # of a padded batch; None until memory ran out
        # Models without a limit of positions have none in their config; then the tokenizer's word is what there is.
        self.context_tokens: int = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Answers in the order of `prompts`; ends early at any end token of the model's generation config.

        Raises ValueError for a token that the model does not know, before any work, torch.OutOfMemoryError when a
        single row does not fit, and RetryError when the GPU itself fails.
        """
        for prompt in prompts:
            self._check(prompt)
        choose = greedy if settings.temperature == 0 else sampling(settings, self._model.device)
        order = longest_first([len(prompt) for prompt in prompts])
        lengths = [len(prompts[row]) for row in order]
        answers: dict[int, Generated] = {}
        while len(answers) < len(prompts):
            start = len(answers)
            rows = order[start : start + count_fitting(lengths[start:], self._limits(settings))]
            tokens = self._decode_or_shrink([prompts[row] for row in rows], settings, choose)
            if tokens is not None:
                found = [to_answer(row, self._ends, self._tokenizer) for row in tokens]
                answers.update(zip(rows, found, strict=True))
                if on_done:
                    on_done(len(rows))
        return [answers[row] for row in range(len(prompts))]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Nothing: see `prompts_ahead`."""

    def _check(self, prompt: Sequence[int]) -> None:
        """A GPU that looks up what is not there fails for good: nothing more can be done in its process."""
        if prompt and not 0 <= min(prompt) <= max(prompt) < self._vocabulary:
            strange = next(id for id in prompt if not 0 <= id < self._vocabulary)
            raise ValueError(f"token {strange} is not among the {self._vocabulary} of the model's vocabulary")

    def _limits(self, settings: GenerationSection) -> BatchLimits:
        tokens = min(settings.max_batch_tokens, self._fitting_tokens or settings.max_batch_tokens)
        return BatchLimits(tokens, settings.max_batch_size, settings.max_new_tokens)

    def _decode_or_shrink(
        self, prompts: Sequence[list[int]], settings: GenerationSection, choose: Choose
    ) -> list[list[int]] | None:
        """New tokens by row; None when memory ran out and batches are smaller from now on."""
        import torch

        try:
            return self._decode(self._model, prompts, self._ends, settings.max_new_tokens, choose)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                raise
        except torch.AcceleratorError as error:
            raise RetryError(f"the GPU failed ({error}); run the job again, or elsewhere if it fails again") from error
        # Only here are the batch's tensors free: an exception holds the frames that it came through.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._fitting_tokens = halved([len(prompt) for prompt in prompts], self._limits(settings)).tokens
        warn("out of memory: smaller batches from now on", rows=len(prompts), max_batch_tokens=self._fitting_tokens)
        return None
