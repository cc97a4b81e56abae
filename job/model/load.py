"""Load a tokenizer, a base and an adapter into memory with transformers and peft.

Weights are read from safetensors only, and quantized to 4 bits while they are loaded.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, ModelSection
from job.errors import ConfigError, DataError, RecapError
from job.model import Model, Tokenizer
from job.model.families import add_pad_token, forbid_repacking, max_positions
from job.model.fetch import Base
from job.model.files import CONFIG, check_tokenizer, files_in_folder, read_json


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> Tokenizer:
    """Load the tokenizer of a base or an adapter; it has a pad token.

    Raise MissingError if its files are missing, DataError if they are broken, ConfigError if
    something is not allowed or not installed.
    """
    from transformers import AutoTokenizer

    check_tokenizer(files_in_folder(path, str(path)))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except RecapError:
        raise
    except Exception as error:  # tokenizers has no narrower class for a broken tokenizer.json
        if isinstance(error, ImportError) or "trust_remote_code" in str(error):
            raise ConfigError(
                f"model: the tokenizer in {path} cannot be loaded as configured: {error}"
            ) from error
        files = ", ".join(sorted(file.name for file in path.glob("tokenizer*")))
        raise DataError(
            f"{path}: its tokenizer cannot be loaded ({type(error).__name__}: {error}); "
            f"copy or fetch its files again ({files})"
        ) from error
    add_pad_token(tokenizer)
    return tokenizer


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
) -> Model:
    """Load a base onto this process's device, in 4 bits if the section says so.

    A base to be `sharded` between processes need not fit on the device: it is loaded into the
    host's memory. Raise ConfigError if it cannot be loaded as configured, DataError if its weights
    are damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(base.path),
            dtype=compute_dtype(section.dtype),
            quantization_config=bitsandbytes_settings(section, sharded),
            device_map={"": "cpu" if sharded else device()},
            attn_implementation=section.attention,
            use_safetensors=True,
            trust_remote_code=section.trust_remote_code,
            # Else transformers raises an error that names no tensor. `_check_whole` names them.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise DataError(
            f"model.base: the weights of {base.uri} are damaged ({error}); fetch them again"
        ) from error
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(f"model: '{base.uri}' cannot be loaded as configured: {error}") from error
    _check_whole(loaded, base)
    forbid_repacking(model)
    return model


def attach_adapter(model: Model, folder: Path) -> Model:
    """Put the adapter in `folder` on a base, and return both as one model ready for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), torch_device=str(device())).eval()


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


def _check_whole(loaded: Mapping[str, Any], base: Base) -> None:
    """Raise DataError for tensors that are missing or of another shape.

    transformers fills them with random numbers, and logs only a warning.
    """
    mismatched = [key for key, *_ in loaded["mismatched_keys"]]
    unfit = sorted({*loaded["missing_keys"], *mismatched})
    if unfit:
        raise DataError(
            f"model.base: the weights of {base.uri} do not fit its config.json: {len(unfit)} "
            f"tensors are not there, or of another shape ({', '.join(unfit[:3])}); "
            "copy or fetch the base again"
        )
