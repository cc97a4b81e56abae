"""From the name of an adapter or a base to something that summarizes: model, tokenizer and prompt, checked to belong.

Knows nothing of files of conversations.
"""

from dataclasses import dataclass
from pathlib import Path

from job.config.sections import (
    AdapterModelSection,
    CleaningStep,
    PromptSection,
    ReadingSection,
    StorageSection,
)
from job.conversations.cleaning import resolve_steps
from job.errors import ConfigError
from job.model.load import (
    Base,
    Model,
    Tokenizer,
    attach_adapter,
    base_of_adapter,
    fetch_adapter,
    fetch_base,
    load_base,
    load_tokenizer,
)
from job.prompt.encode import Prompt, make_prompt, read_prompt
from job.telemetry import event


def cleaning_of(prompt: Prompt, reading: ReadingSection) -> tuple[CleaningStep, ...]:
    """The cleaning that an adapter was trained with, unless the config names steps of its own."""
    return prompt.cleaning if reading.cleaning == "auto" else resolve_steps(reading)


@dataclass(frozen=True)
class FetchedModel:
    """What summarizes, on disk and verified: a base and an adapter's folder, with tokenizer and prompt."""

    base: Base
    adapter: Path | None
    adapter_digest: str | None
    tokenizer: Tokenizer
    prompt: Prompt


@dataclass(frozen=True)
class LoadedModel:
    """What summarizes: the model in memory with its tokenizer, prompt and origin."""

    model: Model
    tokenizer: Tokenizer
    prompt: Prompt
    base: Base
    adapter_digest: str | None


def fetch_with_adapter(
    uri: str, section: AdapterModelSection, storage: StorageSection, cache: Path
) -> FetchedModel:
    """An adapter and its base; its manifest is verified and its base must be the one that it was trained on."""
    folder, recorded, digest = fetch_adapter(uri, storage, cache)
    base = base_of_adapter(uri, recorded, section, storage, cache)
    # A tokenizer made by code of the base's repository comes with that code, which an adapter does not carry.
    tokenizer = (
        load_tokenizer(base.path, True) if section.trust_remote_code else load_tokenizer(folder)
    )
    return FetchedModel(base, folder, digest, tokenizer, read_prompt(folder))


def fetch_without_adapter(
    section: AdapterModelSection, prompt: PromptSection, storage: StorageSection, cache: Path
) -> FetchedModel:
    """A base alone."""
    if section.base is None:
        raise ConfigError(
            "model.base is not set: it says what summarizes where there is no adapter"
        )
    base = fetch_base(section.base, section.revision, storage, cache)
    tokenizer = load_tokenizer(base.path, section.trust_remote_code)
    return FetchedModel(base, None, None, tokenizer, make_prompt(prompt, tokenizer, ["whitespace"]))


def load(model: FetchedModel, section: AdapterModelSection) -> Model:
    """The model in memory, by transformers, ready for inference."""
    loaded = load_base(model.base, section)
    return attach_adapter(loaded, model.adapter) if model.adapter else loaded.eval()


def open_adapter(
    uri: str, section: AdapterModelSection, storage: StorageSection, cache: Path
) -> LoadedModel:
    """An adapter on its base, in memory."""
    fetched = fetch_with_adapter(uri, section, storage, cache)
    event(
        "loading", base=fetched.base.uri, adapter=uri, quantization=section.quantization or "none"
    )
    model = load(fetched, section)
    return LoadedModel(
        model, fetched.tokenizer, fetched.prompt, fetched.base, fetched.adapter_digest
    )
