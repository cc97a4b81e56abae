"""Choose the engine by the config and by what is installed, and load the model into it."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from job.config.commands import AdapterWeights, EngineName
from job.config.sections import AdapterModelSection, GenerationSection
from job.errors import ConfigError
from job.inference.engine import Engine
from job.inference.open import FetchedModel, load, merge
from job.inference.summaries import check_budget
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_start import (
    MISSING,
    SLOW,
    UNTRIED,
    is_installed,
    is_slow,
    section_of_vllm,
    start_vllm,
    why_not,
)
from job.model.load import base_quantization, context_tokens
from job.telemetry import event


@dataclass(frozen=True)
class EngineChoice:
    """The wish of a config: which engine, and the adapter beside its base or merged into it.

    `tensor_parallel` is the number of GPUs that share the weights.
    """

    engine: EngineName
    adapter_weights: AdapterWeights
    tensor_parallel: int = 1


def check_installed(engine: EngineName, tensor_parallel: int = 1) -> None:
    """Raise ConfigError if the config needs an engine that is not installed.

    Cheap: to be called before anything is read.
    """
    if is_installed():
        return
    if tensor_parallel > 1:
        raise _needs_vllm(tensor_parallel, MISSING)
    if engine == "vllm":
        raise ConfigError(f"engine: {MISSING}")


def open_engine(
    model: FetchedModel,
    section: AdapterModelSection,
    generation: GenerationSection,
    choice: EngineChoice,
    cache: Path,
) -> tuple[Engine, str]:
    """Load the model into an engine; return the engine, and its name with version.

    Merges the adapter into its base in `cache` if the config says so. Logs which engine was chosen
    and why. Raise ConfigError if the answer leaves no room for a prompt, or if the config insists
    on an engine that cannot serve the model.
    """
    check_budget(generation, context_tokens(model.base.path))
    if choice.adapter_weights == "merged":
        model = merge(model, section, cache)

    name, why = choose(model, section, choice.engine, choice.tensor_parallel)
    name_and_version = f"{name} {_version(name)}"
    event(
        "engine",
        engine=name_and_version,
        why=why,
        base=model.base.uri,
        adapter=model.adapter_digest,
        adapter_weights=choice.adapter_weights,
        tensor_parallel=choice.tensor_parallel,
        quantization=base_quantization(model.base.path) or section.quantization or "none",
    )
    if name == "vllm":
        started = start_vllm(model, section, generation, choice.tensor_parallel)
        return started, name_and_version
    return TransformersEngine(load(model, section), model.tokenizer), name_and_version


def choose(
    model: FetchedModel,
    section: AdapterModelSection,
    engine: EngineName,
    tensor_parallel: int = 1,
) -> tuple[str, str]:
    """Return `transformers` or `vllm`, and the reason.

    Raise ConfigError if the config insists on vLLM and vLLM cannot serve the model. To share the
    weights among GPUs is to insist: only vLLM can.
    """
    if engine == "transformers":
        return "transformers", "the config says so"
    if tensor_parallel > 1:
        return _vllm_on_several_gpus(model, section, tensor_parallel)
    is_4_bit = section_of_vllm(model, section).quantization is not None
    if engine == "auto" and is_4_bit and is_installed():
        return "transformers", UNTRIED

    reason = why_not(model, section)
    if reason is None and engine == "auto" and is_slow(model):
        reason = SLOW

    if reason is None:
        if engine == "vllm":
            return "vllm", "the config says so"
        return "vllm", "it is installed and can serve the model"
    if engine == "vllm":
        raise ConfigError(f"engine: {reason}")
    return "transformers", reason


def _vllm_on_several_gpus(
    model: FetchedModel,
    section: AdapterModelSection,
    tensor_parallel: int,
) -> tuple[str, str]:
    reason = why_not(model, section, tensor_parallel)
    if reason is not None:
        raise _needs_vllm(tensor_parallel, reason)
    return "vllm", "only it shares the weights among GPUs"


def _needs_vllm(tensor_parallel: int, reason: str) -> ConfigError:
    # The remedies are worded for one GPU.
    other = "engine: transformers"
    reason = reason.replace(other, f"{other} with tensor_parallel: 1")
    return ConfigError(f"tensor_parallel: {tensor_parallel} needs vLLM, and {reason}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # vLLM is one package from several distributions, none of which need be called vllm.
        # Reading all distributions takes a tenth of a second.
        return version(packages_distributions()[package][0])
