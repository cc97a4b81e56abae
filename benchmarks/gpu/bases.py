"""Make bases with the shapes of real ones and random weights, on the device that computes.

A host without network has no base, and reading 13 GB would take longer than most measurements.
Speed and memory depend on shapes alone.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from job.config.sections import AdapterModelSection, ModelSection
from job.model import Model
from job.model.families import forbid_repacking
from job.model.load import bitsandbytes_settings, compute_dtype, device
from job.model.skeleton import make_skeleton

TOKENIZER = Path(__file__).parents[2] / "examples" / "demo" / "base"
STANDARD_DEVIATION = 0.02  # of every weight, as bases are initialized

# The shapes of Llama-3.2-1B, Llama-2-7B and Llama-2-13B, and one for a CPU.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4_096,
    },
    "1b": {
        "hidden_size": 2_048,
        "intermediate_size": 8_192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 4_096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32_000,
    },
    "13b": {
        "hidden_size": 5_120,
        "intermediate_size": 13_824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "vocab_size": 32_000,
    },
}


def write_base(folder: Path, shape: str) -> Path:
    """Write the files of a base without its weights to `folder`, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=16_384,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    for file in TOKENIZER.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def random_base(folder: Path, section: ModelSection | AdapterModelSection) -> Model:
    """Return the base of `folder` with random weights, as `load_base` returns one from disk."""
    model = make_skeleton(folder, section)
    place = device()
    dtype = compute_dtype(section.dtype)
    torch.manual_seed(0)
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            setattr(module, name, _random_parameter(module, old, dtype, place))
    # What is no weight is computed from the config when a module is made.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(place)
    model.tie_weights()
    if section.quantization is not None:
        model.is_loaded_in_4bit = True
        model.hf_quantizer = Bnb4BitHfQuantizer(bitsandbytes_settings(section))
    forbid_repacking(model)
    return model.requires_grad_(False)


def parameters_in_layers(shape: str) -> int:
    """Return the number of parameters that every token is multiplied with, without the head."""
    sizes = SHAPES[shape]
    hidden = sizes["hidden_size"]
    head = hidden // sizes["num_attention_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * head * sizes["num_key_value_heads"]
    total: int = sizes["num_hidden_layers"] * (attention + 3 * hidden * sizes["intermediate_size"])
    return total


def _random_parameter(module: Any, old: Any, dtype: Any, place: Any) -> Any:
    from bitsandbytes.nn import Params4bit

    if isinstance(old, Params4bit):
        shape = (module.out_features, module.in_features)
        weight = STANDARD_DEVIATION * torch.randn(shape, dtype=dtype, device=place)
        packed = Params4bit(
            weight,
            requires_grad=False,
            compress_statistics=old.compress_statistics,
            quant_type=old.quant_type,
            quant_storage=old.quant_storage,
            module=module,
        )
        return packed.to(place)
    if old.dim() == 1:  # of a norm
        return torch.nn.Parameter(torch.ones(old.shape, dtype=dtype, device=place))
    weight = STANDARD_DEVIATION * torch.randn(old.shape, dtype=dtype, device=place)
    return torch.nn.Parameter(weight, requires_grad=False)
