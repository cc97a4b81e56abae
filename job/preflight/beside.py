"""The memory of the models beside the one that summarizes: a challenger, a reward model.

The base of a reward model is counted by its model without weights, as that of a night's own. In a
night it stays beside the summarizer. An evaluation loads it once the summarizer has left.
"""

from contextlib import suppress

from job.config.commands import SummarizeConfig
from job.config.sections import AdapterModelSection, StorageSection
from job.errors import RecapError
from job.inference.reward import SCORING_BYTES
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.model.fetch import Adapter, name_base_of, read_adapter
from job.model.room import missing_weights
from job.preflight.access import small_files
from job.preflight.devices import LIBRARIES_BYTES, Devices, free_host_bytes, or_found, size_text
from job.storage.scratch import cache_folder
from job.summarization.reward import is_loaded_alike, resolve_reward

BYTES_ON_A_GPU = 2  # of a number where no dtype is named
BYTES_ON_A_CPU = 4
BYTES_BY_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}
BYTES_ON_DISK = 4  # of a number of an adapter


def bytes_beside(config: SummarizeConfig, number_bytes: int) -> int:
    """Return the bytes of all their weights, where a number takes so many if no dtype is named.

    What cannot be read counts nothing: its check says why.
    """
    total = 0
    if config.challenger is not None:
        with suppress(RecapError):
            challenger = read_adapter(config.challenger.adapter, config.storage)
            total += _size_of(challenger) * number_bytes // BYTES_ON_DISK
    section = config.generation.reward_model
    with suppress(RecapError):
        reward = resolve_reward(config)
        if section is not None and reward is not None:
            total += bytes_of_judge(config, section, reward, number_bytes)
    return total


def bytes_of_judge(
    config: SummarizeConfig, section: AdapterModelSection, adapter: Adapter, number_bytes: int
) -> int:
    """Return the bytes of a night's reward model beside the summarizer, which may have its base."""
    if _has_its_base(config, section, adapter):
        return _size_of(adapter) * number_bytes // BYTES_ON_DISK
    return bytes_of_reward_model(section, adapter, config.storage, number_bytes)


def _has_its_base(config: SummarizeConfig, section: AdapterModelSection, adapter: Adapter) -> bool:
    """Return True if it is sure that the base is in memory once, whatever machine it is."""
    if config.engine != "transformers" or config.adapter_weights == "merged":
        return False
    if config.adapter is None or not is_loaded_alike(config.model, section):
        return False
    with suppress(RecapError):  # its own check says why
        summarizer = read_adapter(config.adapter, config.storage)
        return bool(summarizer.base.get("digest") == adapter.base.get("digest"))
    return False


def bytes_to_score(config: SummarizeConfig) -> int:
    """Return what vLLM leaves on a GPU for the scores of a reward model.

    Where transformers generates, scoring and generating take turns in the same memory.
    """
    return SCORING_BYTES if config.generation.reward_model is not None else 0


def bytes_of_reward_model(
    section: AdapterModelSection, adapter: Adapter, storage: StorageSection, number_bytes: int
) -> int:
    """Return how many bytes the weights of the reward model take in memory.

    `number_bytes` are those of a number where the config does not name its dtype. A base with code
    of its own is counted by its files, as no plan runs that code.
    """
    each = BYTES_BY_DTYPE.get(section.dtype, number_bytes)
    own = _size_of(adapter) * each // BYTES_ON_DISK
    name, revision = name_base_of(adapter, section)
    if section.trust_remote_code:
        return missing_weights(name, revision, storage, cache_folder()).parameters * each + own

    from job.memory.shape import shape_of
    from job.model.skeleton import make_skeleton

    with small_files(name, revision, storage) as small:
        model = make_skeleton(small.folder, section.model_copy(update={"base": name}))
    return shape_of(model, section.quantization, each).weights + own


def alone_lines(
    section: AdapterModelSection, adapter: Adapter, storage: StorageSection, devices: Devices
) -> list[str]:
    """Return the memory of a reward model that scores once the summarizer has left, by device."""
    devices = or_found(devices)
    on_a_gpu = bytes_of_reward_model(section, adapter, storage, BYTES_ON_A_GPU)
    lines = []
    if devices.cards or not devices.has_cpu:
        lines.append(
            f"on a GPU: {size_text(on_a_gpu)} of weights, once the summarizer has left the memory"
        )
    for card in devices.cards:
        need = on_a_gpu + SCORING_BYTES
        if need > card.memory:
            lines.append(
                f"warning: with {size_text(SCORING_BYTES)} to score, that is more than the "
                f"{size_text(card.memory)} of {card.name}: set evaluation.reward_model.quantization"
            )
    if devices.has_cpu:
        need = bytes_of_reward_model(section, adapter, storage, BYTES_ON_A_CPU) + LIBRARIES_BYTES
        free = free_host_bytes()
        warning = "warning: " if need > free else ""
        lines.append(
            f"{warning}on a CPU: {size_text(need)} of the host's memory, libraries included, of "
            f"which {size_text(free)} are free here, once the summarizer has left it"
        )
    return lines


def _size_of(adapter: Adapter) -> int:
    weights = adapter.manifest.files.get(ADAPTER_WEIGHTS)
    return weights.size if weights else 0
