"""Start vLLM in this process over a model on disk, or return the reason why it cannot serve it.

vLLM is imported only where it is used, since it is an optional dependency and takes seconds.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from job.config.sections import AdapterModelSection, GenerationSection
from job.errors import ConfigError
from job.inference import vllm_process
from job.inference.open import FetchedModel
from job.inference.serving import ServingWish
from job.inference.vllm_engine import VllmEngine, lora_request
from job.inference.vllm_limits import (
    NOT_BFLOAT16,
    section_of_vllm,
    why_not_by_settings,
    why_not_shared,
)
from job.launch.variables import has_growing_memory
from job.model.control_tokens import end_tokens
from job.model.families import generation_config
from job.model.load import compute_dtype, context_tokens
from job.safe_path import safe_variables
from job.telemetry import warn

ENVIRONMENT = {
    # No child process: a killed run leaves none behind, and signals reach the engine. With tensor
    # parallelism there is one for each GPU, which ends when this process does.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # A forked child would have this process's threads' locks, and its handlers of signals.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",
    # Without it, NaN logits become words.
    "VLLM_RAISE_ON_LOGIT_NANS": "1",
    # torch.distributed needs an address even for one process.
    "VLLM_HOST_IP": "127.0.0.1",
    # FlashInfer would compile where it runs, with a compiler that images and most machines lack.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
}

# Reasons against vLLM, with their remedies.
MISSING = "vLLM is not installed: pip install 'recap[vllm]', or set engine: transformers"
SLOW = (
    "vLLM is slow without a GPU where the adapter is beside its base: "
    "set adapter_weights: merged to use vLLM, or insist by engine: vllm"
)
FEW = (
    "vLLM's start takes longer than it would save for so few conversations: "
    "set engine: vllm to use it"
)
UNTRIED = (
    "vLLM with 4-bit weights has not run on a GPU yet: "
    "set engine: vllm to try it, or model.quantization: null to avoid them"
)

# vLLM's own plugin for bitsandbytes. It quantizes doubly and computes in bfloat16.
PLUGIN = "vllm_bnb_plugin"

# Of a night, below which vLLM is not started. On a GPU it compiles and captures graphs first, which
# is expected to take 40 to 120 seconds, and transformers to make some 25 summaries a second of a 7B
# base on an H100. Neither was measured yet.
FEW_CONVERSATIONS = 500

# Whether vLLM generates for each prompt as if it was alone.
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
MIN_CAPABILITY = 8, 0  # of a GPU for that

LARGEST_CPU_CACHE_BYTES = 4 << 30  # of keys and values, if there is no GPU memory for vLLM to fill
LARGEST_RANK = 512
REFUSALS = (ValueError, ImportError, NotImplementedError, RuntimeError)
PLUGIN_REFUSALS = (AttributeError, AssertionError)  # the plugin's for a base that it does not know

# vLLM's own value for max_model_len: the model's context, or less if memory cannot hold one prompt
# of that length.
AS_MANY_AS_FIT = -1


def is_installed() -> bool:
    """Return True if vLLM can be imported."""
    return _is_importable("vllm")


def _is_importable(package: str) -> bool:
    # A mere folder of that name is found too, as a namespace package; it has no origin.
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def is_slow(model: FetchedModel) -> bool:
    """Return True if transformers is faster than vLLM.

    vLLM's kernels for an adapter beside its base are for GPUs. Without them, a base of 3 million
    parameters was 14 times slower than with transformers; merged, it was 2 times faster.
    """
    import torch

    return bool(model.adapters) and not torch.cuda.is_available()


def are_few(conversations: int | None) -> bool:
    """Return True if vLLM's start would take longer than it saves; None is many."""
    import torch

    return (
        conversations is not None
        and conversations < FEW_CONVERSATIONS
        and torch.cuda.is_available()
    )


def why_not(model: FetchedModel, wish: ServingWish) -> str | None:
    """Return the reason why vLLM cannot serve this model, with the remedy; None if it can.

    Of the wish, its section, `generation.deterministic` and `tensor_parallel` count.
    """
    section = section_of_vllm(model.base.path, wish.section)
    if not is_installed():
        return MISSING
    by_settings = why_not_by_settings(model.base.path, wish.section, wish.generation)
    if by_settings is not None:
        return by_settings
    if section.quantization is not None and (reason := _why_not_in_4_bit(section)):
        return reason
    is_deterministic = wish.generation.deterministic
    if is_deterministic and (reason := _why_not_deterministic()):
        return reason
    with _vllm_environment(is_deterministic):
        return _why_vllm_refuses(model, section, wish.tensor_parallel)


def _why_not_deterministic() -> str | None:
    import torch

    remedy = "set generation.deterministic: false, or engine: transformers"
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < MIN_CAPABILITY:
        return f"vLLM is deterministic on GPUs from Ampere on only: {remedy}"
    if BATCH_INVARIANT not in os.environ and "vllm" in sys.modules:
        # Modules of vLLM read the variable when they are imported.
        return f"vLLM was loaded in this process for an engine that is not deterministic: {remedy}"
    return None


def _why_not_in_4_bit(section: AdapterModelSection) -> str | None:
    import torch

    remedy = "set model.quantization: null, or engine: transformers"
    if not torch.cuda.is_available():
        return f"vLLM loads 4-bit weights on a GPU only: {remedy}"
    if compute_dtype(section.dtype) != torch.bfloat16:
        return NOT_BFLOAT16
    if not _is_importable(PLUGIN):
        return f"4-bit weights need a plugin of vLLM's: pip install 'recap[vllm]', {remedy}"
    return None


def start_vllm(model: FetchedModel, wish: ServingWish) -> VllmEngine:
    """Load the model into vLLM, on as many GPUs as the wish names, and return the engine.

    Its context holds the longest prompt that the config admits, and its answer. Without such a
    limit it is the model's context, or as much of it as fits into memory; a warning is logged if it
    is less. Raise ConfigError if the model does not fit, or vLLM refuses it.
    """
    section = section_of_vllm(model.base.path, wish.section)
    generation = wish.generation
    tensor_parallel = wish.tensor_parallel
    limit = context_tokens(model.base.path)
    context = limit or model.tokenizer.model_max_length
    ends = _ends(model, section)

    with _vllm_environment(generation.deterministic):
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        max_tokens = tokens_at_most(generation, context)
        arguments = _engine_arguments(model, section, max_tokens, tensor_parallel)
        arguments.gpu_memory_utilization = _share_of_memory(
            arguments.gpu_memory_utilization, wish.bytes_beside
        )
        refusals: tuple[type[Exception], ...] = REFUSALS
        if section.quantization:
            refusals += PLUGIN_REFUSALS
        if tensor_parallel > 1:
            # A child process prints why it cannot start; here, that comes as a bare Exception.
            refusals = (Exception,)
        try:
            # The usage context of vLLM's own LLM class: it determines the size of batches.
            engine = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
        except refusals as error:
            raise ConfigError(
                f"engine: vllm does not start ({_one_line(error)}): lower "
                "generation.max_input_tokens where memory is short, or set engine: transformers"
            ) from error
        adapter = lora_request(model.adapter) if model.adapter else None

    started = VllmEngine(engine, model.tokenizer, ends, adapter)
    is_shorter = limit is not None and started.context_tokens < limit
    if generation.max_input_tokens is None and is_shorter:
        warn(
            "vLLM has a shorter context than the base",
            tokens=started.context_tokens,
            of=limit,
            remedy="longer conversations go the way of long_conversations; "
            "set generation.max_input_tokens to insist on a longer context",
        )
    return started


def start_beside(
    started: VllmEngine, second: FetchedModel, section: AdapterModelSection
) -> VllmEngine:
    """Return an engine of a second adapter on the vLLM that was started for both."""
    assert second.adapter is not None
    return started.beside(second.tokenizer, _ends(second, section), second.adapter)


def _ends(model: FetchedModel, section: AdapterModelSection) -> frozenset[int]:
    config = generation_config(model.base.path, section.trust_remote_code)
    return end_tokens(model.tokenizer, config)


def tokens_at_most(generation: GenerationSection, context: int) -> int:
    """Return vLLM's limit of tokens for a prompt with its answer.

    It is what the config admits, at most `context`; without a limit in the config, AS_MANY_AS_FIT.
    docs/decisions/0013-vllm-in-this-process.md says why it is not always the context.
    """
    if generation.max_input_tokens is None:
        return AS_MANY_AS_FIT
    return min(context, generation.max_input_tokens + generation.max_new_tokens)


def _engine_arguments(
    model: FetchedModel,
    section: AdapterModelSection,
    max_tokens: int | None,
    tensor_parallel: int,
) -> Any:
    import psutil
    import torch
    from vllm import EngineArgs

    has_gpu = torch.cuda.is_available()
    cache_bytes = None
    if not has_gpu:
        cache_bytes = min(LARGEST_CPU_CACHE_BYTES, psutil.virtual_memory().available // 4)

    lora: Mapping[str, Any] = {}
    slots = [_lora_slot_size(folder) for folder in model.adapters]
    if slots:
        lora = {"enable_lora": True, "max_loras": len(slots), "max_lora_rank": max(slots)}

    return EngineArgs(
        model=str(model.base.path),
        skip_tokenizer_init=True,
        generation_config="vllm",  # not the base's: sampling is configured by recap's config
        quantization="bitsandbytes" if section.quantization else None,
        load_format="bitsandbytes" if section.quantization else "safetensors",
        dtype=str(compute_dtype(section.dtype)).removeprefix("torch."),
        trust_remote_code=section.trust_remote_code,
        max_model_len=max_tokens,
        tensor_parallel_size=tensor_parallel,
        # Its own sum over GPUs cannot share such memory: a process of vLLM's would exit.
        disable_custom_all_reduce=tensor_parallel > 1 and has_growing_memory(os.environ),
        worker_extension_cls=vllm_process.NAME if tensor_parallel > 1 else "",
        enable_prefix_caching=True,
        use_tqdm_on_load=False,
        enforce_eager=not has_gpu,  # compiling pays on GPUs
        kv_cache_memory_bytes=cache_bytes,
        disable_log_stats=True,
        **lora,
    )


def _share_of_memory(share: float, bytes_beside: int) -> float:
    """Return vLLM's share of a GPU's memory, without that of another model of this process."""
    import torch

    if not bytes_beside or not torch.cuda.is_available():
        return share
    _, total = torch.cuda.mem_get_info()
    return max(0.0, share - bytes_beside / int(total))


def _lora_slot_size(adapter: Path) -> int:
    """Return the smallest of vLLM's ranks that the adapter fits into.

    Raise ValueError if vLLM cannot serve the adapter.
    """
    from vllm.config.lora import LoRAConfig, MaxLoRARanks
    from vllm.lora.peft_helper import PEFTHelper

    helper = PEFTHelper.from_local_dir(str(adapter), None)
    helper.validate_legal(LoRAConfig(max_lora_rank=LARGEST_RANK))
    rank = max([helper.r, *helper.rank_pattern.values()])
    sizes: tuple[int, ...] = get_args(MaxLoRARanks)
    return min(size for size in sizes if size >= rank)


def _why_vllm_refuses(
    model: FetchedModel, section: AdapterModelSection, tensor_parallel: int
) -> str | None:
    import torch
    from vllm.config import VllmConfig
    from vllm.platforms import current_platform

    reason = why_not_on_device(current_platform, has_gpu=torch.cuda.is_available())
    if reason is not None:
        return reason
    try:
        for folder in model.adapters:
            _lora_slot_size(folder)
    except ValueError as error:
        remedy = "set adapter_weights: merged, or engine: transformers"
        return f"vLLM cannot serve this adapter ({error}): {remedy}"
    try:
        arguments = _engine_arguments(model, section, None, tensor_parallel)
        created = arguments.create_model_config()
        if section.quantization is None:
            # The base's own quantization may need a newer GPU, or another data type.
            VllmConfig.get_quantization_config(created, arguments.create_load_config())
    except (ValueError, ImportError) as error:
        return f"vLLM cannot serve this base ({_one_line(error)}): set engine: transformers"

    return why_not_shared(created.model_arch_config.total_num_attention_heads, tensor_parallel)


def why_not_on_device(platform: Any, has_gpu: bool) -> str | None:
    """Return the reason why vLLM's platform does not use the device that torch does, else None."""
    instead = "or set engine: transformers"
    if has_gpu and platform.is_unspecified():
        return (
            "vLLM finds no GPU, and torch does: it looks for one through NVML, which comes with "
            f"NVIDIA_DRIVER_CAPABILITIES=compute,utility; set that, {instead}"
        )
    if platform.is_unspecified():
        return f"this vLLM was built for no device of this machine: install another one, {instead}"
    if has_gpu and not platform.is_cuda_alike():
        return (
            f"this vLLM was built for {platform.device_name}, and would leave the GPU idle: "
            f"install its build for CUDA, {instead}"
        )
    return None


@contextmanager
def _vllm_environment(is_deterministic: bool = False) -> Iterator[None]:
    """Set the variables that vLLM reads when it is imported, and silence its log and all warnings.

    The reason of a failure comes with the exception. vLLM's own log has more, but not as JSON
    lines; the warnings are meant for the libraries' authors. Variables that are set already stay.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if is_deterministic:
        os.environ[BATCH_INVARIANT] = "1"
    os.environ.update(safe_variables(os.environ))  # it starts `python -m` of its own
    logging.getLogger("vllm").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
