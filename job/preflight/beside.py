"""The memory of the models beside the one that summarizes a night: a challenger, a reward model."""

from contextlib import suppress

from job.config.commands import SummarizeConfig
from job.errors import RecapError
from job.inference.reward import SCORING_BYTES
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.model.fetch import Adapter, name_base_of, read_adapter
from job.model.room import missing_weights
from job.storage.scratch import cache_folder
from job.summarization.reward import resolve_reward

BYTES_OF_A_WEIGHT = {"nf4": 0.5625, "nf4-double": 0.5625}
BYTES_OF_16_BITS = 2
BYTES_BY_DTYPE = {"float32": 4, "bfloat16": BYTES_OF_16_BITS, "float16": BYTES_OF_16_BITS}


def bytes_beside(config: SummarizeConfig, number_bytes: int) -> int:
    """Return the bytes of all of them, where a number takes so many unless the config says it.

    What cannot be read counts nothing: its check says why.
    """
    total = 0
    if config.challenger is not None:
        with suppress(RecapError):
            total += _size_of(read_adapter(config.challenger.adapter, config.storage))
    with suppress(RecapError):
        reward = resolve_reward(config)
        if reward is not None:
            total += bytes_of_reward_model(config, reward, number_bytes) + SCORING_BYTES
    return total


def bytes_of_reward_model(
    config: SummarizeConfig, adapter: Adapter, number_bytes: int = BYTES_OF_16_BITS
) -> int:
    """Return about how many bytes the weights of the reward model take in memory.

    `number_bytes` are those of a number where the config does not say its dtype.
    """
    section = config.generation.reward_model
    assert section is not None, "it has the adapter"
    name, revision = name_base_of(adapter, section)
    room = missing_weights(name, revision, config.storage, cache_folder())
    each = BYTES_BY_DTYPE.get(section.dtype, number_bytes)
    size = BYTES_OF_A_WEIGHT.get(str(section.quantization), each) * room.parameters
    return int(size) + _size_of(adapter)


def _size_of(adapter: Adapter) -> int:
    weights = adapter.manifest.files.get(ADAPTER_WEIGHTS)
    return weights.size if weights else 0
