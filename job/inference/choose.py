"""Choose the engine by the config and by what is installed, and load the model into it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, Literal

from job.config.sections import AdapterModelSection
from job.config.serving_section import EngineName
from job.errors import ConfigError
from job.inference.beside import EngineOfAdapter
from job.inference.budget import TokenBudget, memory_of
from job.inference.engine import Engine
from job.inference.open import FetchedModel, fitting_into_memory, load, merge
from job.inference.serving import Serving, ServingWish, deciding_generation
from job.inference.summaries import check_budget
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_limits import section_of_vllm
from job.inference.vllm_start import (
    FEW,
    MISSING,
    SLOW,
    UNTRIED,
    are_few,
    is_installed,
    is_slow,
    start_beside,
    start_vllm,
    why_not,
)
from job.model import Model
from job.model.attach import FIRST, SECOND, attach_adapter
from job.model.load import base_quantization, compute_dtype, context_tokens, read_quantization
from job.model.quantization import WeightsInMemory
from job.prompt.template import Prompt, prompt_digest
from job.telemetry import event

Name = Literal["transformers", "vllm"]
JUDGED = "the adapter was judged with it"
# The attention of a model that vLLM runs, which chooses it by itself, and that which transformers
# has for most models.
OF_VLLM = "vllm"
BY_DEFAULT = "sdpa"


def check_installed(engine: EngineName, tensor_parallel: int = 1) -> None:
    """Raise ConfigError if the config needs an engine that is not installed.

    Cheap: to be called before anything is read.
    """
    if is_installed():
        return
    if tensor_parallel > 1 or engine == "vllm":
        raise refusal(tensor_parallel, MISSING)


@dataclass(frozen=True)
class OpenedEngine:
    """A loaded model, and the settings that decide its summaries.

    `with_adapter` returns an engine over the same base with the adapter in a folder, or with None
    of the base alone; engines of before are no longer usable. It is None where the adapter was
    merged, so that the base is no longer there. `weights` are known of transformers only. `second`
    is the engine of the second adapter on the same base, which is usable at the same time. `model`
    is what transformers has in memory, the adapters around the base.
    """

    engine: Engine
    serving: Serving
    with_adapter: Callable[[Path | None], Engine] | None
    weights: WeightsInMemory | None = None
    second: Engine | None = None
    model: Model | None = None


def open_engine(
    model: FetchedModel, wish: ServingWish, cache: Path, second: FetchedModel | None = None
) -> OpenedEngine:
    """Load the model into an engine, and return it with the settings by which it serves.

    Merges the adapter into its base in `cache` if the config says so. Logs which engine was chosen
    and why. `second` is another adapter for the same base, which is served beside the first and
    excludes merging. Raise ConfigError if the answer leaves no room for a prompt, or if the config
    insists on an engine that cannot serve the model.
    """
    check_budget(wish.generation, context_tokens(model.base.path))
    wish = for_this_machine(wish)
    section = wish.section
    is_merged = wish.adapter_weights == "merged" and model.adapter is not None
    if second is not None:
        assert not is_merged, "a merged base serves one adapter"
        model = replace(model, second=second.adapter)
    if is_merged:
        model = merge(model, section, cache)

    wish, name, why = _choose_or_depart(model, wish)
    serving = _serving(model, wish, name)
    event(
        "engine",
        engine=serving.engine_name,
        why=why,
        base=model.base.uri,
        adapter=model.adapter_digest,
        adapter_weights=serving.adapter_weights,
        tensor_parallel=serving.tensor_parallel,
        quantization=serving.quantization,
    )
    if name == "vllm":
        started = start_vllm(model, wish)
        beside = None if second is None else start_beside(started, second, section)
        return OpenedEngine(
            started, serving, None if is_merged else started.with_adapter, second=beside
        )

    loaded = _LoadedModel(model, section)
    engine, other = loaded.engine(), None
    if second is not None:
        with fitting_into_memory(model.base.uri, section):
            engine, other = loaded.engines_with(second)
    return OpenedEngine(
        engine,
        replace(serving, attention=loaded.attention),
        None if is_merged else loaded.with_adapter,
        loaded.weights,
        other,
        loaded.model,
    )


def expected_serving(model: FetchedModel, wish: ServingWish) -> Serving:
    """Return the settings by which a model is to be served, before anything is loaded.

    Where `auto` could only be resolved by loading vLLM, it is taken to serve.
    """
    name: Name = "transformers"
    if wish.engine == "vllm" or wish.tensor_parallel > 1:
        name = "vllm"
    elif wish.engine == "auto" and is_installed():
        is_4_bit = section_of_vllm(model.base.path, wish.section).quantization is not None
        is_beside = wish.adapter_weights == "separate"
        if not is_4_bit and not (is_beside and is_slow(model)):
            name = "vllm"
    return _serving(model, wish, name)


def serving_in_memory(model: Model, dtype: Any, wish: ServingWish, prompt: Prompt) -> Serving:
    """Return the settings of a model with its adapter in the memory of its training.

    `dtype` is that of the computation. Of the wish, generation and reading count.
    """
    return Serving(
        quantization=model.weights_in_memory.quantization,
        dtype=_name_of(dtype),
        attention=_attention(model),
        adapter_weights="separate",
        engine="transformers",
        engine_version=_version("transformers"),
        tensor_parallel=1,
        generation=deciding_generation(wish.generation),
        prompt=prompt_digest(prompt),
        reading=wish.reading,
    )


def _serving(model: FetchedModel, wish: ServingWish, engine: Name) -> Serving:
    """Return the settings by which an engine is to serve, before anything is loaded."""
    attention = BY_DEFAULT if wish.section.attention == "auto" else wish.section.attention
    return Serving(
        quantization=_quantization(model, wish.section, engine),
        dtype=_name_of(compute_dtype(wish.section.dtype)),
        attention=OF_VLLM if engine == "vllm" else attention,
        adapter_weights=wish.adapter_weights,
        engine=engine,
        engine_version=_version(engine),
        tensor_parallel=wish.tensor_parallel,
        generation=deciding_generation(wish.generation),
        prompt=prompt_digest(model.prompt),
        reading=wish.reading.of(model.prompt.cleaning),
    )


def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _attention(model: Model) -> str:
    attention: str = model.config.get_text_config()._attn_implementation
    return attention


def for_this_machine(wish: ServingWish) -> ServingWish:
    """Return the wish without what an adapter was judged with and this machine's GPUs lack."""
    import torch

    if wish.tensor_parallel > torch.cuda.device_count() and "tensor_parallel" in wish.taken:
        wish = replace(wish, tensor_parallel=1)
    if not torch.cuda.is_available():
        return wish
    is_bfloat16 = wish.section.dtype == "bfloat16"
    lacks_it = not torch.cuda.is_bf16_supported(including_emulation=False)
    if "dtype" in wish.taken and is_bfloat16 and lacks_it:
        wish = replace(wish, section=wish.section.model_copy(update={"dtype": "auto"}))
    return wish


def _choose_or_depart(model: FetchedModel, wish: ServingWish) -> tuple[ServingWish, Name, str]:
    """Return the engine and why, and the wish without what only another engine has.

    Where a person insists on vLLM and it cannot serve, raise ConfigError. Where an adapter was
    judged with it, transformers serves in its place.
    """
    is_shared = wish.tensor_parallel > 1
    insists_on_vllm = wish.engine == "vllm" and "engine" not in wish.taken
    insists_on_gpus = is_shared and "tensor_parallel" not in wish.taken
    wants_vllm = wish.engine == "vllm" or is_shared
    if wants_vllm and not insists_on_vllm and not insists_on_gpus:
        reason = why_not(model, wish)
        if reason is not None:
            return replace(wish, engine="transformers", tensor_parallel=1), "transformers", reason
    name, why = choose(model, wish)
    return wish, name, JUDGED if "engine" in wish.taken else why


class _LoadedModel:
    """A model in this process, whose adapter can be exchanged."""

    def __init__(self, model: FetchedModel, section: AdapterModelSection) -> None:
        self._tokenizer = model.tokenizer
        self._dtype = compute_dtype(section.dtype)
        self._has_adapter = model.adapter is not None
        self.model: Model = load(model, section)
        self.attention = _attention(self.model)
        self.weights: WeightsInMemory = self.model.weights_in_memory

    def engine(self) -> Engine:
        return TransformersEngine(self.model, self._tokenizer)

    def engines_with(self, second: FetchedModel) -> tuple[Engine, Engine]:
        """Attach a second adapter, and return an engine of the first and one of the second.

        Both learn together how much fits into memory.
        """
        assert second.adapter is not None
        self.model = attach_adapter(self.model, second.adapter, self._dtype, SECOND)
        budget = TokenBudget(memory_of(self.model.device))
        ours = TransformersEngine(self.model, self._tokenizer, budget=budget)
        other = TransformersEngine(self.model, second.tokenizer, budget=budget)
        first = FIRST if self._has_adapter else None
        return (
            EngineOfAdapter(ours, self.model, first),
            EngineOfAdapter(other, self.model, SECOND),
        )

    def with_adapter(self, folder: Path | None) -> Engine:
        if self._has_adapter:
            self.model = self.model.unload()
        self._has_adapter = folder is not None
        if folder is not None:
            self.model = attach_adapter(self.model, folder, self._dtype)
        return self.engine()


def _quantization(model: FetchedModel, section: AdapterModelSection, engine: str) -> str:
    """Return the quantization of the weights as the engine will have them in memory."""
    if engine == "vllm":
        # It computes with what a base brings along, where transformers may read that into 16 bits.
        return base_quantization(model.base.path) or section.quantization or "none"
    return read_quantization(model.base.path, model.base.uri, section).in_memory


def choose(model: FetchedModel, wish: ServingWish) -> tuple[Name, str]:
    """Return `transformers` or `vllm`, and the reason.

    Raise ConfigError if the config insists on vLLM and vLLM cannot serve the model. To share the
    weights among GPUs is to insist: only vLLM can.
    """
    if wish.engine == "transformers":
        return "transformers", "the config says so"
    if wish.tensor_parallel > 1:
        return _vllm_on_several_gpus(model, wish)
    if wish.engine == "auto" and is_installed():
        # Before vLLM is imported, which takes seconds.
        if section_of_vllm(model.base.path, wish.section).quantization is not None:
            return "transformers", UNTRIED
        if are_few(wish.conversations):
            return "transformers", FEW

    reason = why_not(model, wish)
    if reason is None and wish.engine == "auto" and is_slow(model):
        reason = SLOW

    if reason is None:
        if wish.engine == "vllm":
            return "vllm", "the config says so"
        return "vllm", "it is installed and can serve the model"
    if wish.engine == "vllm":
        raise refusal(1, reason)
    return "transformers", reason


def _vllm_on_several_gpus(model: FetchedModel, wish: ServingWish) -> tuple[Name, str]:
    reason = why_not(model, wish)
    if reason is not None:
        raise refusal(wish.tensor_parallel, reason)
    return "vllm", "only it shares the weights among GPUs"


def refusal(tensor_parallel: int, reason: str) -> ConfigError:
    """Return the error for a config that insists on vLLM, which cannot serve for this reason."""
    if tensor_parallel == 1:
        return ConfigError(f"engine: {reason}")
    # The remedies are worded for one GPU.
    other = "engine: transformers"
    reason = reason.replace(other, f"{other} with tensor_parallel: 1")
    return ConfigError(f"tensor_parallel: {tensor_parallel} needs vLLM, and {reason}")


def _version(package: str) -> str:
    """Return the version of a package, "" if it is not installed here."""
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "vllm" and not is_installed():
            return ""
        # vLLM is one package from several distributions, none of which need be called vllm.
        # Reading all distributions takes a tenth of a second.
        return version(packages_distributions()[package][0])
