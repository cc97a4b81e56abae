"""A tiny base of one family: its entry in the table, and the folder that is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bases.vocabularies import Vocabulary, make_tokenizer

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}

# End tokens of the generation config: so many that answers of random weights end, each at another
# length.
ENDING_IDS = range(40, 300, 5)

SMALLEST_VOCABULARY = 384
DEVIATION = 0.35  # of weights, where the family's own is below SMALL_DEVIATION
SMALL_DEVIATION = 0.1


@dataclass(frozen=True)
class Family:
    """A family: a model type of transformers with what its config needs, and its tokenizer.

    `settings` are keys of recap that the family needs. A family that recap refuses has the sentence
    of `plan` in `refused`.
    """

    name: str
    model_type: str
    vocabulary: Vocabulary
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None
    note: str = ""
    max_tokens: int = 512  # of a row; some templates begin with a long text
    seed: int = 4

    @property
    def style(self) -> str:
        """Return the style of prompt that fits: a base without template has no chat."""
        return "chat" if self.vocabulary.template else "instruction"


def make_base(entry: Family, folder: Path) -> None:
    """Write config, weights, generation config and tokenizer of a tiny base of this family."""
    import torch
    import transformers
    from transformers import AutoConfig, GenerationConfig

    tokenizer = make_tokenizer(entry.vocabulary)
    tokens = {
        # Published embeddings are rounded up, too.
        "vocab_size": max(SMALLEST_VOCABULARY, -(-len(tokenizer) // 64) * 64),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if "text_config" in entry.config:
        keys = dict(entry.config) | {"text_config": entry.config["text_config"] | tokens}
    else:
        keys = SIZES | tokens | dict(entry.config)
    config = AutoConfig.for_model(entry.model_type, **_settable(entry.model_type, keys))
    torch.manual_seed(entry.seed)
    model = getattr(transformers, architecture_of(entry))(config)
    _scale(model)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, *ENDING_IDS],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _model_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    is_multimodal = config.get_text_config() is not config
    return AutoModelForImageTextToText if is_multimodal else AutoModelForCausalLM


def architecture_of(entry: Family) -> str:
    """Return the name of the class that a published base of this family has in its config."""
    from transformers.models.auto import modeling_auto as classes

    if "text_config" in entry.config:
        names = classes.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    elif entry.model_type in classes.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        names = classes.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    elif entry.model_type in classes.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        names = classes.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    else:
        names = classes.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return names[entry.model_type]


def _settable(model_type: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys without those that the config computes from others (Falcon's head_dim)."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    return {
        key: value
        for key, value in keys.items()
        if not isinstance(getattr(kind, key, None), property)
    }


def _scale(model: Any) -> None:
    """Make weights large enough for answers that differ from prompt to prompt.

    At the usual scale, a model so small repeats its last token. Embeddings stay as they are, so
    that the layers decide and not the token before.
    """
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                # New ones begin with zeros here; Gemma 3n's gradients of those are NaN.
                if module.padding_idx is not None:
                    module.weight[module.padding_idx] = module.weight[-1]
                continue
            for parameter in module.parameters(recurse=False):
                if parameter.ndim >= 2 and parameter is not model.get_input_embeddings().weight:
                    deviation = float(parameter.std())
                    if 0 < deviation < SMALL_DEVIATION:
                        parameter.mul_(DEVIATION / deviation)
