"""Reasons why vLLM cannot serve a base, by the settings and the base's config.json alone.

The engine asks when it is opened, and a plan asks before: neither needs vLLM or a GPU for it.
"""

from pathlib import Path

from job.config.sections import AdapterModelSection, GenerationSection
from job.model.files import CONFIG, files_in_folder, read_json
from job.model.load import base_quantization

HEADS = ("num_attention_heads", "n_head", "n_heads")  # in config.json

# The plugin computes in bfloat16, whatever dtype it is given.
NOT_BFLOAT16 = (
    "vLLM computes with 4-bit weights in bfloat16: set model.dtype: bfloat16, or engine: "
    "transformers"
)


def section_of_vllm(base: Path, section: AdapterModelSection) -> AdapterModelSection:
    """Return the section with the quantization that vLLM itself is asked for.

    It reads the base's own quantization from config.json. Only that of bitsandbytes has to be
    named, as when it quantizes plain weights.
    """
    own = base_quantization(base)
    if own is None:
        return section
    quantization = "nf4-double" if own == "bnb-4bit" else None
    return section.model_copy(update={"quantization": quantization})


def why_not_by_settings(
    base: Path, section: AdapterModelSection, generation: GenerationSection
) -> str | None:
    """Return the reason, with the remedy; None if the settings name nothing that vLLM lacks."""
    quantization = section_of_vllm(base, section).quantization
    if quantization is not None and quantization != "nf4-double":
        return (
            f"vLLM's 4-bit weights are nf4-double, not {quantization}: set model.quantization: "
            "null, or engine: transformers"
        )
    if quantization is not None and section.dtype not in ("auto", "bfloat16"):
        return NOT_BFLOAT16
    if section.attention not in ("auto", "sdpa"):
        return (
            f"model.attention: {section.attention} is transformers': leave it out, or set engine: "
            "transformers"
        )
    if generation.deterministic and (quantization or base_quantization(base)):
        return (
            "vLLM is deterministic without quantization only: set generation.deterministic: "
            "false, or engine: transformers"
        )
    return None


def why_not_shared(heads: int, tensor_parallel: int) -> str | None:
    """Return why GPUs cannot share the attention of a base among them; None if they can."""
    if heads % tensor_parallel == 0:
        return None
    divisors = [number for number in range(1, heads + 1) if heads % number == 0]
    return (
        f"the {heads} attention heads of this base cannot be shared among {tensor_parallel} "
        f"GPUs: set tensor_parallel to one of {', '.join(map(str, divisors))}"
    )


def attention_heads(base: Path) -> int | None:
    """Return the number that config.json has, of the language model; None if it has none."""
    config = read_json(files_in_folder(base, str(base)), CONFIG)
    for each in (config.get("text_config"), config):
        found = [each.get(key) for key in HEADS] if isinstance(each, dict) else []
        numbers = [number for number in found if isinstance(number, int)]
        if numbers:
            return numbers[0]
    return None
