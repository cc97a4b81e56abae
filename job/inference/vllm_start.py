"""From what summarizes, on disk, to a vLLM engine that runs in this process, or the reason why vLLM cannot serve it.

vLLM is imported here only, and only when it is asked for. Knows nothing of prompts or answers.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from job.config.sections import AdapterModelSection, GenerationSection
from job.errors import ConfigError
from job.inference.ending import end_tokens
from job.inference.open import FetchedModel
from job.inference.vllm_engine import VllmEngine
from job.model import compute_dtype, context_tokens
from job.safe_path import safe_variables
from job.telemetry import warn

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no child: a killed run leaves none behind, and a signal reaches the engine
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_RAISE_ON_LOGIT_NANS": "1",  # else NaN becomes words
    "VLLM_HOST_IP": "127.0.0.1",  # where the one process meets itself
}
MISSING = "vLLM is not installed: pip install 'recap[vllm]', or set engine: transformers"
SLOW = "vLLM is slow without a GPU where the adapter is beside its base: set adapter_weights: merged, or engine: vllm"
UNTRIED = "vLLM with 4-bit weights has not run on a GPU yet: set engine: vllm to try it, or model.quantization: null"
PLUGIN = "vllm_bnb_plugin"  # vLLM's own, for bitsandbytes; it quantizes doubly and computes in bfloat16
LARGEST_CPU_CACHE_BYTES = 4 << 30  # of keys and values, where there is no GPU whose memory vLLM may fill
LARGEST_RANK = 512
REFUSALS = (ValueError, ImportError, NotImplementedError, RuntimeError)
OF_THE_PLUGIN = (AttributeError, AssertionError)  # for a base that it does not know
AS_MANY_AS_FIT = -1  # vLLM's own word for max_model_len: the model's context, less where memory holds no such prompt


def is_installed() -> bool:
    """Whether there is a vLLM to import."""
    return _is_importable("vllm")


def _is_importable(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name is none


def is_slow(model: FetchedModel) -> bool:
    """Whether another engine is faster: the kernels that put an adapter beside its base are for GPUs.

    Without them a base of 3 million parameters was 14 times slower than with transformers; merged, 2 times faster.
    """
    import torch

    return model.adapter is not None and not torch.cuda.is_available()


def why_not(model: FetchedModel, section: AdapterModelSection) -> str | None:
    """Why vLLM cannot serve this model, and what to do; None where it can."""
    if not is_installed():
        return MISSING
    if section.quantization is not None and (reason := _why_not_in_4_bit(section)):
        return reason
    if section.attention != "sdpa":
        return f"model.attention: {section.attention} is transformers': leave it out, or set engine: transformers"
    with _prepared():
        return _why_vllm_refuses(model, section)


def _why_not_in_4_bit(section: AdapterModelSection) -> str | None:
    import torch

    remedy = "set model.quantization: null, or engine: transformers"
    if section.quantization != "nf4-double":
        return f"vLLM's 4-bit weights are nf4-double, not {section.quantization}: {remedy}"
    if not torch.cuda.is_available():
        return f"vLLM loads 4-bit weights on a GPU only: {remedy}"
    if compute_dtype(section.dtype) != torch.bfloat16:  # the plugin would compute in it all the same
        return "vLLM computes with 4-bit weights in bfloat16: set model.dtype: bfloat16, or engine: transformers"
    if not _is_importable(PLUGIN):
        return f"4-bit weights need a plugin of vLLM's: pip install 'recap[vllm]', {remedy}"
    return None


def start_vllm(model: FetchedModel, section: AdapterModelSection, generation: GenerationSection) -> VllmEngine:
    """The engine with the model in memory; ConfigError where it does not fit or vLLM refuses it.

    Its context is what the config lets through; where that says nothing, the model's, or as much as fits into memory.
    """
    limit = context_tokens(model.base.path)
    context = limit or model.tokenizer.model_max_length
    ends = end_tokens(model.tokenizer, _generation_config(model.base.path, section.trust_remote_code))
    with _prepared():
        from vllm.lora.request import LoRARequest
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = _engine_arguments(model, section, tokens_at_most(generation, context))
        refusals = REFUSALS + OF_THE_PLUGIN if section.quantization else REFUSALS
        try:
            # The context is that of vLLM's own LLM class: it decides how large batches are.
            engine = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
        except refusals as error:
            raise ConfigError(
                f"engine: vllm does not start ({_short(error)}): lower generation.max_input_tokens where memory is "
                "short, or set engine: transformers"
            ) from error
        adapter = LoRARequest("adapter", 1, str(model.adapter)) if model.adapter else None
    started = VllmEngine(engine, model.tokenizer, ends, adapter)
    if generation.max_input_tokens is None and limit is not None and started.context_tokens < limit:
        remedy = "longer conversations go the way of long_conversations; generation.max_input_tokens insists on more"
        warn("vLLM has a shorter context than the base", tokens=started.context_tokens, of=limit, remedy=remedy)
    return started


def tokens_at_most(generation: GenerationSection, context: int) -> int:
    """Tokens of a prompt with its answer: what the config lets through, or what fits into memory of the context.

    Why not the context itself: docs/decisions/0013-vllm-in-this-process.md.
    """
    if generation.max_input_tokens is None:
        return AS_MANY_AS_FIT
    return min(context, generation.max_input_tokens + generation.max_new_tokens)


def _engine_arguments(model: FetchedModel, section: AdapterModelSection, max_tokens: int | None) -> Any:
    import psutil
    import torch
    from vllm import EngineArgs

    has_gpu = torch.cuda.is_available()
    rank = _largest_rank(model.adapter)
    lora: Mapping[str, Any] = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank} if rank else {}
    cache = None if has_gpu else min(LARGEST_CPU_CACHE_BYTES, psutil.virtual_memory().available // 4)
    return EngineArgs(
        model=str(model.base.path),
        skip_tokenizer_init=True,
        generation_config="vllm",  # not the base's: settings come from the config
        quantization="bitsandbytes" if section.quantization else None,
        load_format="bitsandbytes" if section.quantization else "safetensors",
        dtype=str(compute_dtype(section.dtype)).removeprefix("torch."),
        trust_remote_code=section.trust_remote_code,
        max_model_len=max_tokens,
        enable_prefix_caching=True,
        use_tqdm_on_load=False,
        enforce_eager=not has_gpu,  # compiling pays on GPUs
        kv_cache_memory_bytes=cache,
        disable_log_stats=True,
        **lora,
    )


def _largest_rank(adapter: Path | None) -> int | None:
    """The size of vLLM's slots that the adapter fits into, None without one; ValueError where vLLM cannot serve it."""
    if adapter is None:
        return None
    from vllm.config.lora import LoRAConfig, MaxLoRARanks
    from vllm.lora.peft_helper import PEFTHelper

    helper = PEFTHelper.from_local_dir(str(adapter), None)
    helper.validate_legal(LoRAConfig(max_lora_rank=LARGEST_RANK))
    rank = max([helper.r, *helper.rank_pattern.values()])
    sizes: tuple[int, ...] = get_args(MaxLoRARanks)
    return min(size for size in sizes if size >= rank)


def _generation_config(base: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig, GenerationConfig

    if (base / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(str(base))
    config = AutoConfig.from_pretrained(str(base), trust_remote_code=trust_remote_code)
    return GenerationConfig.from_model_config(config)


def _why_vllm_refuses(model: FetchedModel, section: AdapterModelSection) -> str | None:
    from vllm.platforms import current_platform

    if current_platform.is_unspecified():
        return "this vLLM was built for no device of this machine: install another one, or set engine: transformers"
    try:
        _largest_rank(model.adapter)
    except ValueError as error:
        return f"vLLM cannot serve this adapter ({error}): set adapter_weights: merged, or engine: transformers"
    try:
        _engine_arguments(model, section, None).create_model_config()
    except (ValueError, ImportError) as error:
        return f"vLLM cannot serve this base ({_short(error)}): set engine: transformers"
    return None


@contextmanager
def _prepared() -> Iterator[None]:
    """Set what vLLM reads when it is imported, and keep what libraries tell their own authors out of the log.

    What vLLM has to say of a failure comes with the exception; its own log says more, but not as JSON lines.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(safe_variables(os.environ))  # it starts `python -m` of its own
    logging.getLogger("vllm").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _short(error: Exception) -> str:
    """An error's words on one line."""
    return " ".join(str(error).split())
