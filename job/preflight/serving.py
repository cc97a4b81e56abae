"""Say in a plan how an adapter will serve, and what departs from how it was judged."""

from typing import Any

from job.config.commands import TrainConfig
from job.config.data_sections import CleaningStep
from job.inference.serving import Reading
from job.inference.taken import Filled, departures_of_config
from job.inference.vllm_start import is_installed
from job.preflight.checks import Found

BYTES_PER_WEIGHT = {"nf4": 0.5, "nf4-double": 0.5, None: 2}
UNKNOWN = "the adapter does not say how it was judged: it serves as this config says"
WITHOUT_VLLM = (
    "warning: it was judged with vLLM, which is not installed here: where it is missing, "
    "transformers serves, and the manifest says so"
)
BESIDE_VLLM = (
    "vLLM is installed here, and the adapter was judged with transformers: it serves with that, "
    "and engine: auto would depart"
)


def describe_serving_of_training(config: TrainConfig, parameters: int) -> str:
    """Return how the adapter is to serve, on which its scores are taken, and what that needs."""
    serve = config.serve
    quantization = f"quantization {serve.quantization or 'none'}"
    parts = [quantization, f"dtype {serve.dtype}", f"adapter {serve.adapter_weights}"]
    parts.append(f"engine {serve.engine}")
    if serve.tensor_parallel > 1:
        parts.append(f"{serve.tensor_parallel} GPUs")
    reading = Reading(None, serve.long_conversations, serve.redaction)
    parts += reading.unusual()
    lines = [f"{'; '.join(parts)}: the scores are taken on this"]

    if serve.quantization != config.model.quantization:
        size = 4 if serve.dtype == "float32" else BYTES_PER_WEIGHT[serve.quantization]
        lines.append(
            f"about {size * parameters / 1e9:.2g} GB for the base's weights, once the training's "
            "memory is free; where they do not fit, the adapter is published without scores"
        )
    if not is_installed():
        if serve.engine == "vllm" or serve.tensor_parallel > 1:
            without = "publishes no scores"
            if config.publish.gate is not None:
                without = "publishes no scores and passes no gate (76)"
            lines.append(
                f"warning: vLLM is not installed here: a training without it {without}; `recap "
                "evaluate` scores and judges where it is"
            )
        elif serve.engine == "auto":
            lines.append(
                "vLLM is not installed here: a training without it judges transformers, and nights "
                "then serve with that; `recap evaluate` judges vLLM where it is"
            )
    return "\n".join(lines)


def describe_serving_of_adapter(
    filled: Filled[Any], trained: tuple[CleaningStep, ...]
) -> Found[None]:
    """Return how the adapter was judged, and what of that the config or this machine changes.

    `trained` is the cleaning of the adapter's training.
    """
    if filled.judged is None:
        return Found(UNKNOWN, None, is_known=False)
    judged = filled.judged
    text = judged.serving.text()
    lines = [f"as it was judged: {text}" if judged.is_judged else f"never judged, meant for {text}"]
    lines += [f"warning: departs: {each}" for each in departures_of_config(filled, trained)]
    if "engine" in filled.taken:
        if judged.serving.engine == "vllm" and not is_installed():
            lines.append(WITHOUT_VLLM)
        if judged.serving.engine == "transformers" and is_installed():
            lines.append(BESIDE_VLLM)
    is_well = not any(line.startswith("warning") for line in lines)
    return Found("\n".join(lines), None, is_known=is_well)
