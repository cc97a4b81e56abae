"""The engine contract: token ids of prompts in, texts out. Knows nothing of files, conversations or S3."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from job.config.sections import GenerationSection

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Generated:
    """One answer: its text, its length in tokens (the end token not counted), and why it ended."""

    text: str
    output_tokens: int
    finish_reason: FinishReason


class Engine(Protocol):
    """Something that generates; it orders and batches the prompts of one call as suits it."""

    context_tokens: int  # prompt and answer together, at the most
    prompts_ahead: int  # of later calls, which it wants to be told of so that it never runs empty; 0 is none

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Answers in the order of `prompts`; `on_done` is called with the number of prompts finished since last."""

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Prompts, the very same lists, that a later call of `generate` asks for: work on them may begin now."""
