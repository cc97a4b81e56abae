"""Measure what the card itself can do: the rates that all others are shares of."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.gpu.bases import SHAPES
from benchmarks.gpu.trainers import synchronize
from benchmarks.gpu.turns import Turn
from job.model.load import device

REPEATS = 10
LORA_RANK = 16
HOST_SHARE = 16  # of a matrix is quantized on the CPU, which takes seconds


def measure_ceilings(specification: Mapping[str, Any], turn: Turn) -> None:
    """Report rates of matrix products, copies, dequantization, and the kernels of attention."""
    sizes = SHAPES[specification["shape"]]
    is_tiny = specification["shape"] == "tiny"
    place = device()
    found = {
        "bf16_tflops": matrix_tflops(256 if is_tiny else 8_192, place),
        "copy_tb_per_second": copy_tb_per_second(2**16 if is_tiny else 2**31, place),
        **_dequantization(sizes, place),
        "float32_lora_ms": _float32_lora_ms(sizes, 256 if is_tiny else 16_384, place),
        **_attention(sizes, 128 if is_tiny else 4_096, place),
        **_quantization(sizes, place),
    }
    turn.report(found)


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the median seconds of one call, after one that warms up."""
    work()
    times = []
    for _ in range(REPEATS):
        synchronize()
        started = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def matrix_tflops(size: int, place: Any) -> float:
    """Return the rate of bf16 products of two random square matrices."""
    one, other = (torch.randn(size, size, dtype=torch.bfloat16, device=place) for _ in range(2))
    return 2e-12 * size**3 / seconds_of(lambda: one @ other)


def copy_tb_per_second(count: int, place: Any) -> float:
    """Return the rate of a copy on the device, in terabytes read and written."""
    source = torch.empty(count, dtype=torch.uint8, device=place).random_()
    target = torch.empty_like(source)
    return 2e-12 * count / seconds_of(lambda: target.copy_(source))


def _dequantization(sizes: Mapping[str, Any], place: Any) -> dict[str, float]:
    """Return the milliseconds to dequantize all layers once, as each pass over the base does."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    hidden, wide = sizes["hidden_size"], sizes["intermediate_size"]
    total = 0.0
    for shape, count in (((hidden, hidden), 4), ((wide, hidden), 3)):
        weight = torch.randn(shape, dtype=torch.bfloat16, device=place)
        packed, state = quantize_4bit(weight, quant_type="nf4")
        # Bound by default, since the loop goes on.
        total += count * seconds_of(lambda p=packed, s=state: dequantize_4bit(p, s))
    return {"dequantize_base_ms": 1e3 * total * sizes["num_hidden_layers"]}


def _float32_lora_ms(sizes: Mapping[str, Any], tokens: int, place: Any) -> float:
    """Return the milliseconds of an adapter's first product in float32, without TF32."""
    inputs = torch.randn(tokens, sizes["hidden_size"], device=place)
    matrix = torch.randn(sizes["hidden_size"], LORA_RANK, device=place)
    return 1e3 * seconds_of(lambda: inputs @ matrix)


def _attention(sizes: Mapping[str, Any], tokens: int, place: Any) -> dict[str, Any]:
    """Return kernel and milliseconds of sdpa with the mask of padding, and without one."""
    from torch.nn.attention import SDPBackend
    from torch.nn.functional import scaled_dot_product_attention

    heads = sizes["num_attention_heads"]
    shape = (2, heads, tokens, sizes["hidden_size"] // heads)
    query, key, value = (
        torch.randn(shape, dtype=torch.bfloat16, device=place, requires_grad=True) for _ in range(3)
    )
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=place).tril()
    found: dict[str, Any] = {}
    for name, mask in (("masked", causal[None, None].expand(2, 1, -1, -1)), ("unmasked", None)):

        def forward_and_backward(mask: Any = mask) -> None:
            output = scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=mask is None
            )
            output.sum().backward()

        chosen = torch._fused_sdp_choice(query, key, value, mask, 0.0, mask is None)
        kernels = [name for name, each in SDPBackend.__members__.items() if int(each) == chosen]
        found[f"attention_{name}"] = (kernels or [str(chosen)])[0].lower()
        found[f"attention_{name}_ms"] = 1e3 * seconds_of(forward_and_backward)
    return found


def _quantization(sizes: Mapping[str, Any], place: Any) -> dict[str, float]:
    """Return how many million parameters a second are quantized, on the CPU and on this device."""
    from bitsandbytes.functional import quantize_4bit

    shape = (sizes["intermediate_size"], sizes["hidden_size"] // HOST_SHARE)
    weight = torch.randn(shape, dtype=torch.bfloat16)
    quantize_4bit(weight[:64].contiguous(), quant_type="nf4")
    started = time.perf_counter()
    quantize_4bit(weight, quant_type="nf4")
    on_cpu = weight.numel() / (time.perf_counter() - started)
    there = torch.randn(shape[0], sizes["hidden_size"], dtype=torch.bfloat16, device=place)
    on_device = there.numel() / seconds_of(lambda: quantize_4bit(there, quant_type="nf4"))
    return {"quantize_cpu_m_per_s": on_cpu / 1e6, "quantize_m_per_s": on_device / 1e6}
