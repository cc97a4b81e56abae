"""Which engine generates, and why: from what the config asks for and what is installed here, to an engine in memory.

Knows nothing of files of conversations.
"""

from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Literal

from job.config.sections import AdapterModelSection, GenerationSection
from job.errors import ConfigError
from job.inference.engine import Engine
from job.inference.merge import merged
from job.inference.open import FetchedModel, load
from job.inference.summaries import check_budget
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_start import MISSING, SLOW, UNTRIED, is_installed, is_slow, start_vllm, why_not
from job.model import context_tokens
from job.telemetry import event

EngineName = Literal["auto", "transformers", "vllm"]
AdapterWeights = Literal["separate", "merged"]


@dataclass(frozen=True)
class EngineChoice:
    """What is asked for: the engine, and the adapter beside its base or merged into it."""

    engine: EngineName
    adapter_weights: AdapterWeights


def check_installed(engine: EngineName) -> None:
    """ConfigError where the config names an engine that is not there; to be told before anything is read."""
    if engine == "vllm" and not is_installed():
        raise ConfigError(f"engine: {MISSING}")


def open_engine(
    model: FetchedModel, section: AdapterModelSection, generation: GenerationSection, choice: EngineChoice, cache: Path
) -> tuple[Engine, str]:
    """The engine with the model in memory, and its name with version; says which it is and why."""
    check_budget(generation, context_tokens(model.base.path))
    if choice.adapter_weights == "merged":
        model = merged(model, section, cache)
    name, why = choose(model, section, choice.engine)
    told = f"{name} {_version(name)}"
    facts = {"base": model.base.uri, "adapter": model.adapter_digest, "adapter_weights": choice.adapter_weights}
    event("engine", engine=told, why=why, **facts, quantization=section.quantization or "none")
    if name == "vllm":
        return start_vllm(model, section, generation), told
    return TransformersEngine(load(model, section), model.tokenizer), told


def choose(model: FetchedModel, section: AdapterModelSection, engine: EngineName) -> tuple[str, str]:
    """`transformers` or `vllm`, and why; ConfigError where the config insists on one that cannot serve the model."""
    if engine == "transformers":
        return "transformers", "the config says so"
    if engine == "auto" and section.quantization is not None and is_installed():
        return "transformers", UNTRIED
    reason = why_not(model, section)
    if reason is None and engine == "auto" and is_slow(model):
        reason = SLOW
    if reason is None:
        return "vllm", "the config says so" if engine == "vllm" else "it is installed and can serve the model"
    if engine == "vllm":
        raise ConfigError(f"engine: {reason}")
    return "transformers", reason


def _version(package: str) -> str:
    """Of the distribution that brings the package: vLLM has several."""
    return version(packages_distributions()[package][0])
