"""Fetch a base and an adapter with the tokenizer and prompt that belong to them, and load them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from job.config.data_sections import CleaningStep, ReadingSection
from job.config.sections import AdapterModelSection, PromptSection, StorageSection
from job.conversations.cleaning import resolve_steps
from job.errors import ConfigError, is_out_of_memory, shortened
from job.model import Model, Tokenizer
from job.model.attach import attach_adapter
from job.model.fetch import Base, fetch_adapter, fetch_base, fetch_base_of, read_adapter
from job.model.load import compute_dtype, load_base, load_tokenizer
from job.model.merge import merge_adapter
from job.model.thoughts import warn_of_thoughts
from job.prompt.template import Prompt, make_prompt, read_prompt
from job.prompt.vocabulary import check_prompt

CLEANING: tuple[CleaningStep, ...] = ("whitespace",)  # of a base without an adapter


@dataclass(frozen=True)
class FetchedModel:
    """A verified model on disk, ready to be loaded by an engine.

    `adapter` is the adapter's folder, None for a base alone or a merged one. `adapter_digest` is
    that of the adapter, merged or not. `second` is the folder of another adapter that the same
    engine serves beside it.
    """

    base: Base
    adapter: Path | None
    adapter_digest: str | None
    tokenizer: Tokenizer
    prompt: Prompt
    second: Path | None = None

    @property
    def adapters(self) -> list[Path]:
        """The folders of all adapters that an engine needs room for."""
        return [folder for folder in (self.adapter, self.second) if folder is not None]


def fetch_with_adapter(
    uri: str,
    section: AdapterModelSection,
    storage: StorageSection,
    cache: Path,
) -> FetchedModel:
    """Fetch an adapter and the base that it was trained on.

    Raise DamagedError if one of them is not what its manifest or header says, ConfigError if the
    base is another one.
    """
    adapter = read_adapter(uri, storage)
    folder = fetch_adapter(adapter, cache)
    base = fetch_base_of(adapter, section, storage, cache)
    return model_on_disk(base, folder, adapter.digest, section)


def model_on_disk(
    base: Base, adapter: Path, digest: str | None, section: AdapterModelSection
) -> FetchedModel:
    """Return the adapter in a folder and its base, both on disk, with tokenizer and prompt."""
    if section.trust_remote_code:
        # The code of a tokenizer is in the base's repository. An adapter has no copy of it.
        tokenizer = load_tokenizer(base.path, trust_remote_code=True)
    else:
        tokenizer = load_tokenizer(adapter)
    return FetchedModel(base, adapter, digest, tokenizer, read_prompt(adapter))


def fetch_without_adapter(
    section: AdapterModelSection,
    prompt: PromptSection,
    storage: StorageSection,
    cache: Path,
) -> FetchedModel:
    """Fetch a base alone; raise ConfigError if the config names none."""
    if section.base is None:
        raise ConfigError(
            "model.base is not set: without an adapter, it names the model that summarizes"
        )
    base = fetch_base(section.base, section.revision, storage, cache, section.trust_remote_code)
    tokenizer = load_tokenizer(base.path, section.trust_remote_code)
    warn_of_thoughts(tokenizer)
    return FetchedModel(base, None, None, tokenizer, make_prompt(prompt, tokenizer, CLEANING))


def load(model: FetchedModel, section: AdapterModelSection) -> Model:
    """Load the model into memory with transformers, ready for inference.

    Raise ConfigError if it does not fit, or has no embedding of a token of its prompt.
    """
    with fitting_into_memory(model.base.uri, section):
        base = load_base(model.base, section)
        if model.adapter is None:
            embeddings = base.get_input_embeddings().num_embeddings
            check_prompt(model.tokenizer, model.prompt, embeddings)
            return base.eval()
        return attach_adapter(base, model.adapter, compute_dtype(section.dtype))


@contextmanager
def fitting_into_memory(uri: str, section: AdapterModelSection) -> Iterator[None]:
    """Raise ConfigError if memory runs out while the base of this location is loaded."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        remedy = "take a larger machine"
        if section.quantization is None:
            remedy = f"set model.quantization: nf4-double, or {remedy}"
        raise ConfigError(
            f"model.base: {uri} does not fit into memory ({shortened(error)}): {remedy}"
        ) from error


def merge(model: FetchedModel, section: AdapterModelSection, cache: Path) -> FetchedModel:
    """Merge the adapter into its base, and return the model without an adapter beside it."""
    if model.adapter is None or model.adapter_digest is None:
        return model
    base = merge_adapter(model.base, model.adapter, model.adapter_digest, section, cache)
    return replace(model, adapter=None, base=base)


def cleaning_of(prompt: Prompt, reading: ReadingSection) -> tuple[CleaningStep, ...]:
    """Return the cleaning that an adapter was trained with, or the steps that the config names."""
    return prompt.cleaning if reading.cleaning == "auto" else resolve_steps(reading)
