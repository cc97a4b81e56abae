"""A summarizer that answers at once and always alike: what is left is everything but the model."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import GenerationSection
from job.inference.engine import Generated
from job.prompt.encode import Encoder
from job.prompt.template import Prompt
from job.summarization.summarizer import Summarizer, find_digests

NO_WEIGHTS = (2).to_bytes(8, "little") + b"{}"  # a safetensors file without tensors
PROMPT = Prompt("Summarize:\n", "\nSummary:\n", False, {}, ("whitespace",))


class StandInTokenizer:
    """A token is a byte: as quick as a tokenizer can be in Python."""

    is_fast = False

    bos_token_id = None
    eos_token_id = 0

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, Any]:
        """Ids as transformers' tokenizers give them."""
        return {"input_ids": [list(text.encode()) for text in texts]}


class StandInEngine:
    """Answers with the prompt's length and some of its tokens, each after `seconds_each`."""

    context_tokens = 1 << 20
    prompts_ahead = 0

    def __init__(self, before: Callable[[], None] = lambda: None, seconds_each: float = 0) -> None:
        self.prompts, self.seconds, self._before, self._seconds_each = 0, 0.0, before, seconds_each

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Answers in the order of the prompts."""
        self._before()
        started = time.perf_counter()
        time.sleep(len(prompts) * self._seconds_each)
        self.prompts += len(prompts)
        self.seconds += time.perf_counter() - started
        if on_done:
            on_done(len(prompts))
        return [
            Generated(f"{len(prompt)} tokens, among them {prompt[20:30]}", 3, "stop")
            for prompt in prompts
        ]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Nothing: it is never busy."""


def stand_in(engine: Any, tokenizer: Any = None) -> Callable[[SummarizeConfig, Path], Summarizer]:
    """How a summarizer is opened that has this engine and no model; without a tokenizer, tokens are bytes."""
    tokenizer = tokenizer or StandInTokenizer()

    def open_with(config: SummarizeConfig, cache: Path) -> Summarizer:
        digests = find_digests(config, cache)
        encoder = Encoder(PROMPT, tokenizer, 1 << 19)
        return Summarizer(engine, encoder, PROMPT.cleaning, digests, "stand-in")

    return open_with
