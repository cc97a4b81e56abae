"""Index of the quirks of base-model families, and the home of those of configs and weights.

recap treats all bases alike. Where a family needs a rule of its own, the rule is a function in one
of the modules below, and the code that loads, encodes, trains or generates calls it. The version of
a library is the one that was looked at: look again when it changes.

- here: configs, generation configs, encoders, mixtures' own loss (transformers 5.19, TRL 1.16),
  adapters in 16 bits (TRL 1.16), weights that are repacked (bitsandbytes 0.50.2)
- `model.modules`: what LoRA can adapt, experts, the name of a body (transformers 5.19, TRL 1.16)
- `model.four_bit`: experts and linear subclasses that stay in 16 bits (transformers 5.19,
  bitsandbytes 0.50.2)
- `model.quantization`: bases that are quantized already (transformers 5.19, peft 0.21)
- `model.architecture`: multimodal classes, layers that no model uses (transformers 5.19)
- `model.tokenizer_files`: forms of a tokenizer that are not read, or otherwise than meant
  (transformers 5.19)
- `model.control_tokens`: tokens that begin, end and pad a text (transformers 5.19)
- `model.chat`: templates that refuse, drop or alter a message, or think (templates; no library)
- `model.thoughts`: the marks of thoughts in an answer (models; no library)
- `training.own_head`: models that look ahead, heads of which TRL computes another loss (TRL 1.16)
- `inference.batch`: what a base's config asks of a generation (transformers 5.19)
- `inference.sharing`: models that do not heed the mask of a batch (transformers 5.19)
- `inference.cache`: caches of which rows cannot be selected (transformers 5.19)

To add a quirk: write a function, and say in its docstring which families have it, what goes wrong
without the rule, and how that shows. Call it from the one line that it changes, and claim it in the
tests of its module with the smallest model or tokenizer that has the quirk. Test for the property
(a template that refuses a system message), never for a model's name: copies and fine-tunes have
other names.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from job.model import Model
from job.model.files import GENERATION_CONFIG

# Names of a model's longest context, the usual one first, and of the configs that may have it.
CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "seq_length",
    "model_max_length",
    "context_length",
    "n_ctx",
    "max_target_positions",
)
LANGUAGE_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
MAX_NESTED_CONFIGS = 8
UNLIMITED = 10**9  # numbers above it mean that there is no limit
STRETCHING_ROPE = ("linear", "dynamic", "yarn")


# Configs


def max_positions(config: Any) -> int | None:
    """Return how many positions a model was made for; None if its config names no limit.

    `config` is a transformers config, which knows defaults that a file leaves out, or the JSON of
    one. GPT-2 and GPT-J call the limit n_positions, MPT max_seq_len, ChatGLM seq_length. Multimodal
    models have it in the config of their language model (`text_config` of Gemma 3 and Mistral 3,
    `thinker_config` of Qwen-Omni). Without any of them, a longer row is an IndexError, on a GPU a
    device assert. Models without position embeddings (Mamba) have no limit but memory.
    """
    for each in _language_configs(config):
        for key in CONTEXT_KEYS:
            limit = _value(each, key)
            is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if is_number and 0 < limit < UNLIMITED:
                return _stretched(int(limit), each)
    return None


def _language_configs(config: Any) -> list[Any]:
    """Return the config of the language model and those around it, the innermost first."""
    found = [config]
    for each in found:
        inner = [_value(each, key) for key in LANGUAGE_CONFIGS]
        found += [value for value in inner if value is not None and len(found) < MAX_NESTED_CONFIGS]
    if hasattr(config, "get_text_config"):
        with suppress(ValueError):  # several language models: which one is meant is not known
            found.append(config.get_text_config())
    return found[::-1]


def _stretched(limit: int, config: Any) -> int:
    """Return the limit of rotary positions that a factor stretches beyond the trained ones.

    Vicuna-16k and Qwen with YaRN leave `max_position_embeddings` as it was before: without the
    factor, three quarters of their context would be unused. Llama 3.1 and Phi-3 (longrope), and
    families with one factor for each type of layer (Gemma 3), name the stretched number itself.
    """
    rope = _value(config, "rope_parameters") or _value(config, "rope_scaling")
    if not isinstance(rope, Mapping):
        return limit
    factor = rope.get("factor")
    original = rope.get("original_max_position_embeddings") or limit
    stretches = (rope.get("rope_type") or rope.get("type")) in STRETCHING_ROPE
    if not stretches or not isinstance(factor, int | float) or not isinstance(original, int):
        return limit
    return max(limit, int(original * factor))


def _value(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)


def all_configs(model: Model) -> list[Any]:
    """Return the model's config, and the one of its language model if that is another.

    Multimodal models (Gemma 3, Mistral 3, Qwen-VL) have the language model's config inside of their
    own. Set in the outer one alone, a value such as `use_cache` does not reach the language model,
    and generation computes the whole prompt again for each token.
    """
    own = model.config
    of_text = own.get_text_config()
    return [own] if of_text is own else [own, of_text]


def sees_later_tokens(config: Any) -> bool:
    """Return True if the config makes a model whose tokens see those that come after them.

    Encoders (BERT, RoBERTa, ELECTRA, XLM) are published to fill in masked words, and transformers
    5.19 makes causal models of them all the same, of which only `is_decoder: true` looks back
    alone. EmbeddingGemma is a Gemma 3 that looks both ways. Such a model sees each token that it
    should learn to predict: its loss falls to nothing, and its summaries are none. The key alone
    does not decide: GPT-NeoX has it too, and looks back alone.
    """
    from transformers import AutoModelForMaskedLM

    for each in (config, config.get_text_config()):
        is_encoder = type(each) in AutoModelForMaskedLM._model_mapping
        is_decoder = each.is_encoder_decoder or getattr(each, "is_decoder", True)
        if is_encoder and not is_decoder:
            return True
        if getattr(each, "use_bidirectional_attention", None) in (True, "all"):
            return True
        if getattr(each, "causal", None) is False or getattr(each, "is_causal", None) is False:
            return True
    return False


def prepare_for_training(model: Model) -> None:
    """Set the configs of a model for training: no cache, and no loss that balances experts.

    A cache is for generation. Mixtures of experts (Qwen-MoE, Mixtral, Granite-4, Jamba): their own
    loss keeps the router from sending all tokens to the same experts. Routers get no adapter (see
    `linear_modules`), so there is nothing to balance, and that loss would only pull at attention.
    TRL 1.16 computes it from keys that some families call otherwise, and fails at the first step:
    "object has no attribute 'num_experts'".
    """
    for config in all_configs(model):
        config.use_cache = False
        if hasattr(config, "output_router_logits"):
            config.output_router_logits = False


def generation_config(base: Path, trust_remote_code: bool) -> Any:
    """Return a base's generation config, from its config where it has no file of its own.

    Older bases and many fine-tunes have no generation_config.json. Their end tokens are in
    config.json; without those, answers may run on to the limit.
    """
    from transformers import AutoConfig, GenerationConfig

    if (base / GENERATION_CONFIG).is_file():
        return GenerationConfig.from_pretrained(str(base))
    config = AutoConfig.from_pretrained(str(base), trust_remote_code=trust_remote_code)
    return GenerationConfig.from_model_config(config)


# Modules and weights


def forbid_repacking(model: Model) -> None:
    """Forbid bitsandbytes to repack 4-bit weights in place.

    Any 4-bit base on a CPU with AVX512-BF16: bitsandbytes repacks the weights at the first
    evaluation and undoes it at the next save. In between, training goes through other kernels, so
    an adapter would depend on when it was evaluated and saved (measured with 0.50.2).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def keep_adapter_in_float32(model: Model) -> None:
    """Undo TRL's cast of an adapter on a 4-bit base to bfloat16.

    A bfloat16 weight has 8 bits of precision: at LoRA's learning rates, the late, small updates
    round to nothing. And on GPUs without bfloat16, float16's gradient scaler cannot handle bfloat16
    gradients. The adapter is small, so float32 costs little.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
