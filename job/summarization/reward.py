"""The reward model of a night with candidates: which one it is, once for the whole night."""

from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import AdapterModelSection
from job.errors import naming_key
from job.model.fetch import Adapter, check_adapter_digest
from job.model.reward import read_reward_model

SECTION = "generation.reward_model"
KEY = f"{SECTION}.adapter"
LOADED_BY = ("quantization", "dtype", "attention", "trust_remote_code")


def resolve_reward(config: SummarizeConfig) -> Adapter | None:
    """Return the reward model of a config, with its manifest; None for a night without candidates.

    Raise what `read_reward_model` raises, DataError for another digest than the config's.
    """
    section = config.generation.reward_model
    if section is None:
        return None
    with naming_key(KEY):
        adapter = read_reward_model(section.adapter, config.storage, KEY)
        check_adapter_digest(adapter, section.adapter_digest, KEY)
    return adapter


def with_reward(config: SummarizeConfig, adapter: Adapter | None) -> SummarizeConfig:
    """Return the config with the reward model by its digest."""
    generation = config.generation
    if adapter is None or generation.reward_model is None:
        return config
    resolved = {"adapter": adapter.uri, "adapter_digest": adapter.digest}
    reward = generation.reward_model.model_copy(update=resolved)
    return config.model_copy(
        update={"generation": generation.model_copy(update={"reward_model": reward})}
    )


def is_loaded_alike(one: AdapterModelSection, other: AdapterModelSection) -> bool:
    """Return True if both sections make the same weights in memory of one base."""
    return all(getattr(one, key) == getattr(other, key) for key in LOADED_BY)


def reward_facts(adapter: Adapter) -> dict[str, Any]:
    """Return what a manifest says of the reward model."""
    return {
        "adapter": adapter.uri,
        "digest": adapter.digest,
        "run": adapter.manifest.extra.get("run"),
    }
