"""Serving settings of an adapter, for tests that change some of them with `replace`."""

from job.inference.serving import Serving

GENERATION = {
    "max_new_tokens": 64,
    "temperature": 0.0,
    "top_p": 1.0,
    "seed": 42,
    "max_input_tokens": None,
}
SERVING = Serving(
    quantization="none",
    dtype="bfloat16",
    attention="vllm",
    adapter_weights="separate",
    engine="vllm",
    engine_version="0.32.0",
    tensor_parallel=1,
    generation=GENERATION,
    prompt="0" * 64,
)
