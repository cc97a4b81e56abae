"""Make a reward model of a base: a LoRA adapter, and a head that scores a text by its last token.

The head is a linear layer beside the base's own, which stays: a reward model shares a base with the
adapter whose summaries it scores. peft stores it with the adapter, under the name that the models
for classification of transformers have for it.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import Any

from job.config.sections import StorageSection
from job.config.training_sections import LoraSection
from job.errors import ConfigError, naming_key
from job.model import Model
from job.model.adapter import lora_config
from job.model.adapter_files import HEAD
from job.model.champion import is_pointer
from job.model.fetch import Adapter, read_adapter
from job.model.kinds import check_scores_summaries
from job.model.modules import name_body


def read_reward_model(uri: str, storage: StorageSection, key: str) -> Adapter:
    """Read the manifest of a reward model. `key` is the config's that names it.

    Raise what `read_adapter` raises, ConfigError for any other adapter and for a pointer.
    """
    if is_pointer(uri):
        raise ConfigError(
            f"{key}: {uri} is a pointer to a champion, which writes summaries: name the folder "
            "adapter of a training with method: reward"
        )
    with naming_key(key):
        return read_adapter(uri, storage, check_scores_summaries)


def check_scorable(config: Any, uri: str, adapted: Collection[str]) -> None:
    """Raise ConfigError if transformers has no classification model of a base with this config.

    So it is if that model lacks one of the `adapted` modules, as where it reads images, too. recap
    needs none, but a reward model that only recap can load would be of little use.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ConfigError(
            f"model.base: {uri} is a {config.model_type}, for which transformers has no model with "
            "a head for scores (AutoModelForSequenceClassification): method: reward takes another "
            "base, such as a Llama, Qwen, Mistral or Gemma"
        )
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(deepcopy(config))
    missing = sorted(set(adapted) - {name for name, _ in model.named_modules()})
    if missing:
        raise ConfigError(
            f"model.base: {uri} is a {config.model_type}, and the model with a head for scores "
            f"that transformers has of it lacks {missing[0]}, so it could not load the adapter: "
            "method: reward takes another base, such as one for text alone"
        )


def reward_config(section: LoraSection, model: Model, revision: str | None = None) -> Any:
    """Return the peft config of a reward model on a base with a head; raises as `lora_config`."""
    from peft import TaskType

    config = lora_config(section, model, revision)
    config.task_type = TaskType.SEQ_CLS
    config.modules_to_save = [HEAD]
    # The head is trained itself: an adapter that starts from this one must not look for its own.
    config.target_modules = set(config.target_modules) - {HEAD}
    return config


def add_head(base: Model) -> None:
    """Put a head of zeros on a base, in float32; a no-op if it has one.

    With zeros, each text has the score 0 before the first step, and no seed decides anything.
    """
    import torch

    if hasattr(base, HEAD):
        return
    name_body(base)
    head = torch.nn.Linear(_features(base), 1, bias=False, device=base.device, dtype=torch.float32)
    torch.nn.init.zeros_(head.weight)
    setattr(base, HEAD, head)


def scores_at_end(base: Model, input_ids: Any, attention_mask: Any = None) -> Any:
    """Return the score of each row at its last token that is no padding: (rows,), float32.

    Rows are padded on the right. The mask, if there is one, says where they end: the end token of a
    summary is the pad token of many bases, whose own classification models take the token before.
    """
    import torch

    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    output = base.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    rows = torch.arange(len(input_ids), device=input_ids.device)
    ends = output.last_hidden_state[rows, attention_mask.sum(dim=1) - 1]  # (rows, features)
    # In 16 bits, the scores of similar summaries would be the same.
    with torch.autocast(ends.device.type, enabled=False):
        scores: Any = getattr(base, HEAD)(ends.float())[:, 0]
    return scores


def score_in_forward(base: Model) -> None:
    """Let a base, within what is around it, return scores in place of logits."""
    from transformers.modeling_outputs import SequenceClassifierOutput

    def forward(input_ids: Any, attention_mask: Any = None, **_: Any) -> Any:
        return SequenceClassifierOutput(logits=scores_at_end(base, input_ids, attention_mask))

    base.forward = forward


def _features(base: Model) -> int:
    """Return the numbers of a hidden state: that of some bases is not their embeddings' (OPT)."""
    head = base.get_output_embeddings()
    features = getattr(head, "in_features", None)
    return int(features or base.config.get_text_config().hidden_size)
