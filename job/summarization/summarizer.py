"""From a config to what summarizes: an engine with the tokenizer, prompt and cleaning that belong to it.

Which engine it is, and how it was loaded, is known here and nowhere above. Knows nothing of files of conversations.
"""

from dataclasses import dataclass
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.sections import CleaningStep, PromptSection
from job.inference.engine import Engine
from job.inference.open import LoadedModel, cleaning_of, open_adapter, open_base
from job.inference.summaries import check_budget, input_budget
from job.inference.transformers_engine import TransformersEngine
from job.model import BASE_KEY, Tokenizer, fetch_base, read_adapter
from job.prompt import Prompt


@dataclass(frozen=True)
class Digests:
    """Which weights summarize: of the adapter (None is the base alone) and of the base below it."""

    adapter: str | None
    base: str


@dataclass(frozen=True)
class Summarizer:
    """What turns conversations into summaries; `max_input_tokens` is the room for a prompt."""

    engine: Engine
    tokenizer: Tokenizer
    prompt: Prompt
    cleaning: tuple[CleaningStep, ...]
    max_input_tokens: int
    digests: Digests


def find_digests(config: SummarizeConfig, cache: Path) -> Digests:
    """The digests before anything is loaded; an adapter's manifest tells its own and its base's."""
    if config.adapter is not None:
        _, manifest, digest = read_adapter(config.adapter, config.storage)
        return Digests(digest, str(manifest.extra[BASE_KEY].get("digest")))
    assert config.model.base is not None
    return Digests(None, fetch_base(config.model.base, config.model.revision, config.storage, cache).digest)


def open_summarizer(config: SummarizeConfig, cache: Path) -> Summarizer:
    """Everything in memory; ConfigError where the model's context has no room for a conversation beside the answer."""
    loaded = _load(config, cache)
    engine = TransformersEngine(loaded.model, loaded.tokenizer)
    check_budget(config.generation, engine.context_tokens)
    budget = input_budget(engine, config.generation)
    cleaning = cleaning_of(loaded.prompt, config.data)
    digests = Digests(loaded.adapter_digest, loaded.base.digest)
    return Summarizer(engine, loaded.tokenizer, loaded.prompt, cleaning, budget, digests)


def _load(config: SummarizeConfig, cache: Path) -> LoadedModel:
    if config.adapter is not None:
        return open_adapter(config.adapter, config.model, config.storage, cache)
    return open_base(config.model, config.prompt or PromptSection(), config.storage, cache)
