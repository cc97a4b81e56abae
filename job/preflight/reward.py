"""Check the reward model of a night with candidates: that it is one, and what it takes."""

from functools import partial

from job.config.commands import SummarizeConfig
from job.model.adapter_files import check_adapter_config
from job.model.fetch import check_small_files, name_base_of
from job.model.files import ADAPTER_CONFIG
from job.preflight.access import describe_base, small_files
from job.preflight.beside import BYTES_ON_A_CPU, BYTES_ON_A_GPU, bytes_of_judge
from job.preflight.checks import Check, Found, check_value
from job.preflight.devices import Devices, size_text
from job.summarization.reward import KEY, resolve_reward


def reward_checks(config: SummarizeConfig, devices: Devices) -> list[Check]:
    """Return the check of the reward model, none for a night without candidates."""
    if config.generation.reward_model is None:
        return []
    found, _ = check_value("reward", partial(_describe, config, devices), KEY)
    return [found]


def _describe(config: SummarizeConfig, devices: Devices) -> Found[None]:
    section = config.generation.reward_model
    adapter = resolve_reward(config)
    assert section is not None, "asked only with one"
    assert adapter is not None, "of that section"
    if ADAPTER_CONFIG in adapter.manifest.files:
        content = adapter.store.read(ADAPTER_CONFIG)
        check_adapter_config(content, adapter.uri, is_reward_model=True)
    name, revision = name_base_of(adapter, section)
    base = describe_base(name, revision, config.storage, None, section.trust_remote_code)
    with small_files(name, revision, config.storage) as small:
        check_small_files(adapter, section, small.folder)
    count = config.generation.candidates
    is_cpu = devices.has_cpu and not devices.cards
    number_bytes = BYTES_ON_A_CPU if is_cpu else BYTES_ON_A_GPU
    size = bytes_of_judge(config, section, adapter, number_bytes)
    lines = [
        f"{adapter.uri}  of run {adapter.manifest.extra.get('run')}",
        f"base {base}",
        f"it chooses one of {count} candidates of each summary: a night of some {count} times the "
        "generation",
        f"{size_text(size)} of weights in each worker, beside the summarizer's",
    ]
    return Found("\n".join(lines), None)
