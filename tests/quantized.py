"""Bases that are quantized as published ones are, made from a plain base in a folder."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BLOCK = 32  # rows and columns that share a scale of FP8, and numbers that share one of GPTQ


def make_fp8(plain: Path, folder: Path) -> Path:
    """Write the base with FP8 weights and a scale for each block, as Qwen and DeepSeek do."""
    settings = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    return _convert(plain, folder, settings | {"activation_scheme": "dynamic"}, _fp8)


def make_gptq(plain: Path, folder: Path) -> Path:
    """Write the base with linear layers as GPTQ packs them; the weights are random."""
    settings = {"quant_method": "gptq", "bits": 4, "group_size": BLOCK, "desc_act": False}
    return _convert(plain, folder, settings, _gptq)


def make_awq(plain: Path, folder: Path) -> Path:
    """Write the base with linear layers as AWQ packs them; the weights are random."""
    settings = {"quant_method": "awq", "bits": 4, "group_size": BLOCK, "zero_point": True}
    return _convert(plain, folder, settings | {"version": "gemm"}, _awq)


def make_bitsandbytes(plain: Path, folder: Path, **settings: Any) -> Path:
    """Write the base as it is saved after bitsandbytes quantized it, as unsloth's are."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=BitsAndBytesConfig(**settings), device_map={"": "cpu"}
    ).save_pretrained(folder)
    return folder


def make_mxfp4(plain: Path, folder: Path) -> Path:
    """Write a gpt-oss with experts in MXFP4, as it is published, and the plain base's tokenizer."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GptOssConfig, GptOssForCausalLM

    config = json.loads((plain / "config.json").read_text())
    sizes = {key: config[key] for key in ("vocab_size", "hidden_size", "eos_token_id")}
    torch.manual_seed(0)
    model = GptOssForCausalLM(
        GptOssConfig(
            **sizes,
            bos_token_id=0,
            pad_token_id=2,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            initializer_range=0.2,
        )
    )
    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    model.save_pretrained(folder)

    path = folder / "model.safetensors"
    tensors = {}
    for name, weight in load_file(path).items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = weight
            continue
        experts, inputs, outputs = weight.shape
        groups = (experts, outputs, inputs // 32)
        # Two numbers of 4 bits in a byte; 32 of them share a scale, an exponent of 2 plus 127.
        tensors[f"{name}_blocks"] = torch.randint(256, (*groups, 16), dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.randint(120, 126, groups, dtype=torch.uint8)
    save_file(tensors, path, {"format": "pt"})
    _name_quantization(folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    return folder


def _convert(
    plain: Path,
    folder: Path,
    settings: Mapping[str, Any],
    quantize: Callable[[str, Any], dict[str, Any]],
) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, folder)
    path = folder / "model.safetensors"
    tensors: dict[str, Any] = {}
    for name, weight in load_file(path).items():
        if name.endswith("_proj.weight"):
            tensors |= quantize(name.removesuffix(".weight"), weight)
        else:
            tensors[name] = weight
    save_file(tensors, path, {"format": "pt"})
    _name_quantization(folder, settings)
    return folder


def _name_quantization(folder: Path, settings: Mapping[str, Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": settings}
    path.write_text(json.dumps(config))


def _fp8(name: str, weight: Any) -> dict[str, Any]:
    import torch

    largest = torch.finfo(torch.float8_e4m3fn).max
    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scales = blocks.abs().amax(dim=(1, 3), keepdim=True) / largest
    packed = (blocks / scales).reshape(rows, columns).to(torch.float8_e4m3fn)
    return {f"{name}.weight": packed, f"{name}.weight_scale_inv": scales.squeeze(3).squeeze(1)}


def _gptq(name: str, weight: Any) -> dict[str, Any]:
    import torch

    rows, columns = weight.shape
    return {
        f"{name}.qweight": _random_integers(columns // 8, rows),
        f"{name}.qzeros": _random_integers(columns // BLOCK, rows // 8),
        f"{name}.scales": torch.rand(columns // BLOCK, rows).half(),
        f"{name}.g_idx": torch.arange(columns, dtype=torch.int32) // BLOCK,
    }


def _awq(name: str, weight: Any) -> dict[str, Any]:
    import torch

    rows, columns = weight.shape
    return {
        f"{name}.qweight": _random_integers(columns, rows // 8),
        f"{name}.qzeros": _random_integers(columns // BLOCK, rows // 8),
        f"{name}.scales": torch.rand(columns // BLOCK, rows).half(),
    }


def _random_integers(rows: int, columns: int) -> Any:
    import torch

    return torch.randint(2**31 - 1, (rows, columns), dtype=torch.int32)
