"""A stand-in for the model: a summarizer that answers at once, and always alike.

With it, a night is everything but the model.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import GenerationSection
from job.inference.engine import Generated
from job.inference.open import cleaning_of
from job.inference.taken import Filled
from job.model.fetch import read_adapter
from job.prompt.encode import Encoder
from job.prompt.template import Prompt
from job.summarization.summarizer import Digests, Scorer, Summarizer, fetch_digests

Open = Callable[[Filled[SummarizeConfig], Path], Summarizer]
NO_WEIGHTS = (2).to_bytes(8, "little") + b"{}"  # a safetensors file without tensors
PROMPT = Prompt("Summarize:\n", "\nSummary:\n", False, {}, ("whitespace",))


PROMPT_OF_CHALLENGER = Prompt("Sum up:\n", "\nSummary:\n", False, {}, ("whitespace",))


class StandInTokenizer:
    """A tokenizer whose tokens are bytes, as fast as one can be in Python."""

    is_fast = False

    bos_token_id = None
    eos_token_id = 0

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, Any]:
        """Return ids as transformers' tokenizers do."""
        return {"input_ids": [list(text.encode()) for text in texts]}


class StandInEngine:
    """An engine that answers with the prompt's length and some of its tokens.

    It calls `before` in each `generate`, and takes `seconds_each` for each prompt. Its answers end
    with `mark`. They name the seed if they are drawn.
    """

    context_tokens = 1 << 20
    prompts_ahead = 0

    def __init__(
        self,
        before: Callable[[], None] = lambda: None,
        seconds_each: float = 0,
        mark: str = "",
    ) -> None:
        self.prompts = 0
        self.seconds = 0.0
        self._before = before
        self._seconds_each = seconds_each
        self._mark = mark

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return an answer for each prompt, in their order."""
        self._before()
        started = time.perf_counter()
        time.sleep(len(prompts) * self._seconds_each)
        self.prompts += len(prompts)
        self.seconds += time.perf_counter() - started
        if on_done:
            on_done(len(prompts))
        mark = f" by seed {settings.seed}{self._mark}" if settings.temperature else self._mark
        return [
            Generated(f"{len(prompt)} tokens, among them {prompt[20:30]}{mark}", 3, "stop")
            for prompt in prompts
        ]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Do nothing: it is never busy."""


class TextEngine:
    """An engine that answers the text of each prompt by a function, whose tokens are bytes."""

    context_tokens = 1 << 20
    prompts_ahead = 0

    def __init__(self, summarize: Callable[[str], str]) -> None:
        self._summarize = summarize

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return an answer for each prompt, in their order."""
        texts = [self._summarize(bytes(prompt).decode()) for prompt in prompts]
        if on_done:
            on_done(len(prompts))
        return [Generated(text, 12, "stop") for text in texts]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Do nothing: it is never busy."""


def stand_in(engine: Any, tokenizer: Any = None, challenger: Any = None, score: Any = None) -> Open:
    """Return a function that opens a summarizer with this engine and without a model.

    Without a tokenizer, tokens are bytes. `challenger` is the engine of the night's challenger, if
    it has one; its prompt is its own. `score` stands for the reward model's function.
    """
    tokenizer = tokenizer or StandInTokenizer()

    def open_with(filled: Filled[SummarizeConfig], cache: Path) -> Summarizer:
        digests = fetch_digests(filled.config, cache)
        encoder = Encoder(PROMPT, tokenizer, 1 << 19)
        cleaning = cleaning_of(PROMPT, filled.config.data)
        reward = filled.config.generation.reward_model
        scorer = None if reward is None else Scorer(str(reward.adapter_digest), score)
        found = Summarizer(engine, encoder, cleaning, digests, "stand-in", scorer=scorer)
        section = filled.config.challenger
        if section is None:
            return found
        digest = read_adapter(section.adapter, filled.config.storage).digest
        beside = Summarizer(
            challenger,
            Encoder(PROMPT_OF_CHALLENGER, tokenizer, 1 << 19),
            cleaning,
            Digests(digest, digests.base),
            "stand-in",
            scorer=scorer,
        )
        return replace(found, challenger=beside)

    return open_with
