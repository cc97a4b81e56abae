"""Load a tokenizer and a base into memory with transformers.

Weights are read from safetensors only, and quantized to 4 bits while they are loaded.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, ModelSection
from job.errors import (
    ConfigError,
    DataError,
    RecapError,
    shortened,
)
from job.model import Model, Tokenizer
from job.model.architecture import (
    attention_argument,
    auto_class,
    explained,
    model_config,
)
from job.model.control_tokens import add_pad_token
from job.model.families import forbid_repacking, max_positions
from job.model.fetch import Base
from job.model.files import CONFIG, BaseFiles, files_in_folder, read_json, tokenizer_names
from job.model.fit import check_headers, check_whole
from job.model.libraries import import_bitsandbytes, importing
from job.model.quantization import (
    METHODS,
    Quantization,
    WeightsInMemory,
    check_blocks,
    choose_quantization,
    four_bit_share,
    make_plain,
    quantization_of,
    set_own,
)
from job.model.tokenizer_files import (
    SAMPLES,
    add_chat_template,
    check_pieces,
    check_tokenizer,
)
from job.telemetry import event, warn

SMALL_SHARE = 0.5  # of the weights in 4 bits, below which a warning is due


def load_tokenizer(
    path: Path, trust_remote_code: bool = False, uri: str | None = None
) -> Tokenizer:
    """Load the tokenizer of a base or an adapter; it has a pad token.

    `uri` names the folder in errors. Raise MissingError if its files are missing, DataError if they
    are broken, ConfigError if something is not allowed, not installed or not read.
    """
    with importing():
        from transformers import AutoTokenizer

    where = uri or str(path)
    files = files_in_folder(path, where)
    check_tokenizer(files)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path),
            trust_remote_code=trust_remote_code,
            # Else the class would depend on whether mistral-common is installed, as it is beside
            # vLLM.
            mistral_format=False,
        )
        tokenizer(list(SAMPLES))  # some mistakes show in use only
    except RecapError:
        raise
    except BaseException as error:  # tokenizers has no narrower class for a broken tokenizer.json
        # A panic of its Rust code is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, ImportError) or "trust_remote_code" in str(error):
            raise ConfigError(
                f"model: the tokenizer in {where} cannot be loaded as configured: {error}"
            ) from error
        _check_config(path, files, trust_remote_code)
        names = ", ".join(tokenizer_names(files))
        raise DataError(
            f"{where}: its tokenizer cannot be loaded ({shortened(error)}); "
            f"copy or fetch its files again ({names})"
        ) from error
    add_chat_template(tokenizer, files)
    if not trust_remote_code:  # a class of the base's own may have pieces of its own
        check_pieces(tokenizer, path, files)
    add_pad_token(tokenizer)
    return tokenizer


def _check_config(path: Path, files: BaseFiles, trust_remote_code: bool) -> None:
    """Raise what is wrong with the base's config.json, which transformers may read for a tokenizer.

    An adapter's folder has none.
    """
    from transformers import AutoConfig

    if CONFIG in files.sizes:
        with explained(path, files.uri):
            AutoConfig.from_pretrained(str(path), trust_remote_code=trust_remote_code)


def context_tokens(path: Path) -> int | None:
    """Return how many positions a base was made for; None if its config names no limit."""
    content = read_json(files_in_folder(path, str(path)), CONFIG)
    from transformers import AutoConfig

    try:
        # transformers knows the names and defaults of the limit in each family.
        return max_positions(AutoConfig.from_pretrained(str(path), trust_remote_code=False))
    except Exception:  # a class of the base's own, or a mistake, which loading the base reports
        return max_positions(content)


def load_base(
    base: Base,
    section: ModelSection | AdapterModelSection,
    sharded: bool = False,
    is_merging: bool = False,
    on_cpu: bool = False,
    shared: Path | None = None,
) -> Model:
    """Load a base onto this process's device, or `on_cpu`, in 4 bits if the section says so.

    A base to be `sharded` need not fit on the device, which quantizes each tensor: it stays in the
    host's memory. Its 4-bit weights are those of the file `shared`, written if it is not there. To
    merge an adapter into it, its own quantization is undone. The model has `weights_in_memory`.
    Raise ConfigError if it cannot be loaded as configured, DataError if its weights are wrong.
    """
    with importing():
        import torch
        from transformers import AutoModelForCausalLM

    quantization = read_quantization(base.path, base.uri, section, is_merging)
    check_possible(base.path, base.uri, quantization, sharded)
    config = model_config(base.path, base.uri, section)
    set_own(config, quantization)
    settings = bitsandbytes_settings(section, sharded) if quantization.by_recap else None
    is_staged = quantization.own is not None and settings is not None
    arguments = {}
    # Even None would replace the base's own quantization: the weights would be read as plain ones.
    if settings is not None and not is_staged:  # transformers then compares no shapes
        arguments["quantization_config"] = settings
        check_headers(files_in_folder(base.path, base.uri), base.path, section, quantization)
    place = torch.device("cpu") if sharded or on_cpu else device()
    with explained(base.path, base.uri), _quantizing(settings, sharded, shared) as packing:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(base.path),
            config=config,
            dtype=compute_dtype(section.dtype),
            device_map={"": "cpu" if is_staged else place},
            attn_implementation=attention_argument(section),
            use_safetensors=True,
            trust_remote_code=section.trust_remote_code,
            # Else transformers raises an error that names no tensor. `check_whole` names them.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
        )
        _warn_of_unused(check_whole(model, loaded, base.uri, quantization), base)
        if quantization.is_dequantized:
            make_plain(model, compute_dtype(section.dtype))
        if is_staged:
            from job.model.four_bit import quantize_in_place

            quantize_in_place(model, settings, place, packing, with_experts=not sharded)
    if packing is not None and shared is not None:
        packing.share(model, shared)
    forbid_repacking(model)
    model.weights_in_memory = WeightsInMemory(
        quantization.in_memory, quantization.own, auto_class(config), four_bit_share(model)
    )
    _log(model, base, is_warned=quantization.by_recap is not None)
    return model


@contextmanager
def _quantizing(settings: Any, sharded: bool, shared: Path | None) -> Iterator[Any]:
    """During the block, let transformers quantize by bitsandbytes' `settings`; yield the packing.

    Without settings it is None, and bitsandbytes is not imported.
    """
    if settings is None:
        yield None
        return
    import_bitsandbytes()
    from job.model.four_bit import quantizing
    from job.model.packed import packing_of

    packing = packing_of(device() if sharded else None, shared)
    # FSDP shards no packed experts: they stay in 16 bits.
    with quantizing(not sharded, packing):
        yield packing


def base_quantization(path: Path) -> str | None:
    """Return the name of the quantization that a base in a folder was published with."""
    return quantization_of(read_json(files_in_folder(path, str(path)), CONFIG))


def read_quantization(
    path: Path,
    uri: str,
    section: ModelSection | AdapterModelSection,
    is_merging: bool = False,
) -> Quantization:
    """Return how the base in a folder is loaded; raise ConfigError if that is not possible."""
    config = read_json(files_in_folder(path, uri), CONFIG)
    return choose_quantization(config, uri, section.quantization, is_merging)


def compute_dtype(name: str) -> Any:
    """Return the torch dtype of the computation.

    auto is bfloat16 on a GPU that computes in it, float16 on older ones, and float32 on the CPU.
    """
    import torch

    if name != "auto":
        return getattr(torch, name)
    if not torch.cuda.is_available():
        return torch.float32
    # Older GPUs only emulate bfloat16, which is slower than float32.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def device() -> Any:
    """Return the device of this process: the GPU of its local rank, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def free_memory() -> None:
    """Give back the memory of models that nothing refers to any more, also those in cycles."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_gpu_bytes(device: Any = None) -> int:
    """Return the bytes that can still be allocated on a GPU, the current one by default.

    torch keeps what it has freed, which counts.
    """
    import torch

    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def bitsandbytes_settings(
    section: ModelSection | AdapterModelSection, sharded: bool = False
) -> Any:
    """Return how bitsandbytes quantizes plain weights; None if the section says not to."""
    if section.quantization is None:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    # bitsandbytes packs two 4-bit weights into a byte. FSDP shards only what has a floating-point
    # dtype, and casts what has another dtype than the computation, packed bytes too: there the
    # bytes must be stored under the dtype of the computation.
    dtype = compute_dtype(section.dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=section.quantization == "nf4-double",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if sharded else torch.uint8,
    )


def check_possible(path: Path, uri: str, quantization: Quantization, sharded: bool) -> None:
    """Raise ConfigError for a base's own quantization that cannot be sharded, or read rightly.

    Reads the headers of the weights in the folder, if there are any.
    """
    if sharded and quantization.in_memory in METHODS:
        raise ConfigError(
            f"training.distribution: fsdp cannot shard {uri}, which is quantized "
            f"({quantization.own}): use training.distribution: ddp, or the base that it was made "
            "from"
        )
    if quantization.own == "fp8":
        check_blocks(path, uri, read_json(files_in_folder(path, uri), CONFIG))


def _warn_of_unused(tensors: list[str], base: Base) -> None:
    if tensors:
        warn(
            "the base has tensors that its model does not use",
            base=base.uri,
            tensors=len(tensors),
            such_as=", ".join(tensors[:3]),
        )


def _log(model: Model, base: Base, is_warned: bool) -> None:
    """Log what is in memory, and warn if most weights that should be in 4 bits are not."""
    weights: WeightsInMemory = model.weights_in_memory
    attention = model.config.get_text_config()._attn_implementation
    event("base loaded", base=base.uri, attention=attention, **weights.facts())
    if is_warned and weights.share.of_linear < SMALL_SHARE:
        warn(
            "most weights of the base are not in 4 bits, and need four times the memory",
            share_of_weights=round(weights.share.of_linear, 3),
            remedy="use a machine whose memory holds them in 16 bits, or a smaller base",
        )
