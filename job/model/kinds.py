"""Tell adapters that write summaries from reward models, which score them, by their manifests.

Both are LoRA adapters of recap. A reward model that wrote summaries would write noise.
"""

from job.errors import ConfigError
from job.storage.folders import Manifest

METHOD_KEY = "method"  # of an adapter manifest's extra; adapters of earlier versions have none
REWARD = "reward"
ROW_TOKENS_KEY = "max_tokens"  # of a reward model: of a row that it was trained on


def is_reward_model(manifest: Manifest) -> bool:
    """Return True if the manifest of an adapter says that it is a reward model."""
    return manifest.extra.get(METHOD_KEY) == REWARD


def check_writes_summaries(manifest: Manifest, uri: str) -> None:
    """Raise ConfigError if the adapter is a reward model."""
    if is_reward_model(manifest):
        raise ConfigError(
            f"{uri} is a reward model (method: reward), which scores summaries and writes none: "
            "name an adapter that was trained with method: sft, dpo or kto, and a reward model in "
            "evaluation.reward_model or, of a night, generation.reward_model"
        )


def check_scores_summaries(manifest: Manifest, uri: str) -> None:
    """Raise ConfigError if the adapter is no reward model."""
    if not is_reward_model(manifest):
        raise ConfigError(
            f"{uri} is an adapter that writes summaries (method: "
            f"{manifest.extra.get(METHOD_KEY, 'sft')}), and no reward model: name the adapter of a "
            "training with method: reward"
        )
