"""Say in a plan how an adapter will serve, and what departs from how it was judged."""

from pathlib import Path
from typing import Any

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.config.data_sections import CleaningStep
from job.config.sections import AdapterModelSection, GenerationSection
from job.errors import ConfigError
from job.inference.choose import refusal
from job.inference.serving import Reading
from job.inference.summaries import check_budget
from job.inference.taken import Filled, departures_of_config
from job.inference.vllm_limits import attention_heads, why_not_by_settings, why_not_shared
from job.inference.vllm_start import MISSING, is_installed
from job.model.load import context_tokens, read_quantization
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


def describe_serving_of_training(config: TrainConfig, parameters: int, folder: Path) -> Found[None]:
    """Return how the adapter is to serve, on which its scores are taken, and what that needs.

    `folder` has the small files of the base.
    """
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
    without = "publishes no scores"
    if config.publish.gate is not None:
        without = "publishes no scores and passes no gate (76)"
    why = _why_nowhere(config, folder)
    if why is not None:
        lines.append(f"warning: this training {without}: {why} (keys of serve)")
    if not is_installed():
        if serve.engine == "vllm" or serve.tensor_parallel > 1:
            lines.append(
                f"warning: vLLM is not installed here: a training without it {without}; `recap "
                "evaluate` scores and judges where it is"
            )
        elif serve.engine == "auto":
            lines.append(
                "vLLM is not installed here: a training without it judges transformers, and nights "
                "then serve with that; `recap evaluate` judges vLLM where it is"
            )
    return Found("\n".join(lines), None, is_known=why is None)


def _why_nowhere(config: TrainConfig, folder: Path) -> str | None:
    """Return why no machine can serve the adapter as the section `serve` says; None if one can."""
    serve = config.serve
    section = AdapterModelSection(
        base=config.model.base, quantization=serve.quantization, dtype=serve.dtype
    )
    if serve.adapter_weights == "merged":
        try:
            read_quantization(folder, config.model.base, section, is_merging=True)
        except ConfigError as error:
            return str(error)
    if serve.engine != "vllm" and serve.tensor_parallel == 1:
        return None
    return _why_not_vllm(folder, section, config.generation, serve.tensor_parallel)


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


def describe_engine(
    folder: Path, config: SummarizeConfig | EvaluateConfig, insists_on_vllm: bool
) -> Found[None]:
    """Return what is known of the engine by the base's small files, which are in `folder`.

    `config` has what it takes of its adapter. Raise the ConfigError of a run that is told to use
    vLLM, or to merge its adapter, and cannot; or that has no room for a conversation.
    """
    check_budget(config.generation, context_tokens(folder))
    section = config.model
    if config.adapter is not None and config.adapter_weights == "merged":
        read_quantization(folder, section.base or str(folder), section, is_merging=True)
    if not insists_on_vllm:
        return Found(config.engine, None)

    reason = _why_not_vllm(folder, section, config.generation, config.tensor_parallel)
    if reason is not None:
        raise refusal(config.tensor_parallel, reason)
    if not is_installed():
        return Found(f"where the job runs: {MISSING}", None, is_known=False)
    return Found("vLLM is installed here; it checks the rest when it starts", None)


def _why_not_vllm(
    folder: Path, section: AdapterModelSection, generation: GenerationSection, tensor_parallel: int
) -> str | None:
    reason = why_not_by_settings(folder, section, generation)
    heads = attention_heads(folder)
    if reason is None and heads is not None:
        reason = why_not_shared(heads, tensor_parallel)
    return reason
