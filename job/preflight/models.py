"""Check the adapter with its base, or the base alone, of a command that generates."""

from pathlib import Path

from job.config.commands import EvaluateConfig, SummarizeConfig
from job.config.sections import PromptSection
from job.model.adapter_files import check_adapter_config
from job.model.fetch import (
    check_adapter_digest,
    check_small_files,
    fetch_base_of,
    name_base_of,
    read_adapter,
)
from job.model.files import ADAPTER_CONFIG
from job.preflight.access import describe_base, small_files
from job.preflight.checks import Check, check


def model_checks(config: SummarizeConfig | EvaluateConfig) -> list[Check]:
    """Return the check of the adapter or of the base; none if given summaries are scored."""
    adapter = config.adapter
    if adapter is not None:
        return [check("adapter", lambda: _describe_adapter(adapter, config), "adapter")]
    base = config.model.base
    if base is None:
        return []
    prompt = config.prompt if isinstance(config, SummarizeConfig) else None
    return [check("base", lambda: _describe_base(base, config, prompt), "model.base")]


def _describe_base(
    uri: str, config: SummarizeConfig | EvaluateConfig, prompt: PromptSection | None
) -> str:
    model = config.model
    with small_files(uri, model.revision, config.storage) as small:
        return describe_base(
            uri,
            model.revision,
            config.storage,
            prompt or PromptSection(),
            model.trust_remote_code,
            small,
        )


def _describe_adapter(uri: str, config: SummarizeConfig | EvaluateConfig) -> str:
    adapter = read_adapter(uri, config.storage)
    if isinstance(config, SummarizeConfig):
        check_adapter_digest(adapter, config.adapter_digest)
    if ADAPTER_CONFIG in adapter.manifest.files:
        check_adapter_config(adapter.store.read(ADAPTER_CONFIG), uri)
    name, revision = name_base_of(adapter, config.model)
    base = describe_base(name, revision, config.storage, None, config.model.trust_remote_code)
    if Path(name).is_dir():
        fetch_base_of(adapter, config.model, config.storage, Path(name))
    else:  # reading all weights is cheap only in a folder of this machine
        with small_files(name, revision, config.storage) as small:
            check_small_files(adapter, config.model, small())
    return f"{uri}  of run {adapter.manifest.extra.get('run')}\nbase {base}"
