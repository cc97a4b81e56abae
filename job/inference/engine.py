"""The engine contract: token ids of prompts in, texts out."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from job.config.sections import GenerationSection
from job.errors import RetryError
from job.model import Tokenizer
from job.model.thoughts import read_answer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Generated:
    """One answer: its text, its length in tokens without the end token, and why it ended.

    "stop" means that the model ended it, "length" that it reached the limit. The text has none of
    the model's thoughts, the length does. `is_only_thought` is True if there was nothing else.
    """

    text: str
    output_tokens: int
    finish_reason: FinishReason
    is_only_thought: bool = False


class Engine(Protocol):
    """A model that generates. It orders and batches the prompts of one call as suits it."""

    # The largest number of tokens in a prompt and its answer together.
    context_tokens: int

    # The number of prompts of later calls that `expect` should announce so that the engine never
    # runs idle. 0 means none.
    prompts_ahead: int

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return an answer to each prompt, in order.

        `on_done` is called with the number of prompts finished since the last call.
        """

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Announce prompts of a later call of `generate`, so that work on them may begin now.

        The later call must pass the very same list objects.
        """


def to_answer(tokens: Sequence[int], ends: Collection[int], tokenizer: Tokenizer) -> Generated:
    """Return generated tokens as an answer. `tokens` may still end with an end token."""
    stopped = bool(tokens) and tokens[-1] in ends
    kept = tokens[:-1] if stopped else tokens
    answer = read_answer(kept, tokenizer)
    reason: FinishReason = "stop" if stopped else "length"
    return Generated(answer.text, len(kept), reason, answer.is_only_thought)


def why_only_thought(answer: Generated) -> str:
    """Return why an answer that is only a thought has no text, with the remedy."""
    if answer.finish_reason == "stop":
        return f"the model thought for {answer.output_tokens} tokens and gave no answer"
    return (
        f"the model was still thinking after {answer.output_tokens} tokens; raise "
        "generation.max_new_tokens, or use a base that does not think"
    )


def gpu_failed(error: Exception) -> RetryError:
    """Return the error of a run whose GPU itself failed: not the model, and no record."""
    return RetryError(
        f"the GPU failed ({error}); run the job again, or elsewhere if it fails again"
    )
