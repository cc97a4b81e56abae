"""From a config to what summarizes: an engine with the tokenizer, prompt and cleaning that belong to it.

Which engine it is, and how it was loaded, is known here and nowhere above. Knows nothing of files of conversations.
"""

from dataclasses import dataclass
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.sections import CleaningStep, PromptSection
from job.inference.choose import EngineChoice, open_engine
from job.inference.engine import Engine
from job.inference.open import FetchedModel, cleaning_of, fetch_with_adapter, fetch_without_adapter
from job.inference.summaries import check_budget, input_budget
from job.model.fetch import check_adapter_digest, fetch_base, read_adapter
from job.prompt.encode import Encoder


@dataclass(frozen=True)
class Digests:
    """Which weights summarize: of the adapter (None is the base alone) and of the base below it."""

    adapter: str | None
    base: str


@dataclass(frozen=True)
class Summarizer:
    """What turns conversations into summaries.

    `engine_name` has the version: `vllm 0.32.0`.
    """

    engine: Engine
    encoder: Encoder
    cleaning: tuple[CleaningStep, ...]
    digests: Digests
    engine_name: str


def find_digests(config: SummarizeConfig, cache: Path) -> Digests:
    """Return the digests before anything is loaded; an adapter's manifest has its own and its base's.

    Raises DataError where the adapter is not the one of `adapter_digest`.
    """
    if config.adapter is not None:
        adapter = read_adapter(config.adapter, config.storage)
        check_adapter_digest(adapter, config.adapter_digest)
        return Digests(adapter.digest, str(adapter.base.get("digest")))
    assert config.model.base is not None
    return Digests(
        None, fetch_base(config.model.base, config.model.revision, config.storage, cache).digest
    )


def open_summarizer(config: SummarizeConfig, cache: Path) -> Summarizer:
    """Everything in memory; ConfigError where the model's context has no room for a conversation beside the answer."""
    model = _fetch(config, cache)
    choice = EngineChoice(config.engine, config.adapter_weights)
    engine, name = open_engine(model, config.model, config.generation, choice, cache)
    check_budget(config.generation, engine.context_tokens)
    budget = input_budget(engine, config.generation)
    encoder = Encoder(model.prompt, model.tokenizer, budget)
    cleaning = cleaning_of(model.prompt, config.data)
    digests = Digests(model.adapter_digest, model.base.digest)
    return Summarizer(engine, encoder, cleaning, digests, name)


def _fetch(config: SummarizeConfig, cache: Path) -> FetchedModel:
    if config.adapter is not None:
        return fetch_with_adapter(config.adapter, config.model, config.storage, cache)
    return fetch_without_adapter(
        config.model, config.prompt or PromptSection(), config.storage, cache
    )
