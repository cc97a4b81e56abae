"""Ask a base, by its config alone, whether this training can be done with it.

The model is made without weights and gets its adapter: what a library refuses, it refuses now, and
not after the weights were fetched and the data encoded.
"""

from dataclasses import dataclass
from pathlib import Path

from job.config.commands import TrainConfig
from job.errors import ConfigError
from job.inference.summaries import check_budget
from job.model.adapter import lora_config
from job.model.architecture import model_config
from job.model.describe import Facts, facts_of
from job.model.load import base_quantization, check_possible, read_quantization
from job.model.quantization import METHODS
from job.model.reward import add_head, check_scorable, reward_config
from job.training.causes import blaming_the_config


@dataclass(frozen=True)
class Examined:
    """The facts of a base with the adapter of a config."""

    base: Facts
    adapted_modules: int
    trained_parameters: int

    def adapter_text(self) -> str:
        """Return what is trained, for people."""
        return (
            f"adapter: {self.trained_parameters:,} parameters in {self.adapted_modules:,} modules"
        )


def examine_base(folder: Path, config: TrainConfig) -> Examined:
    """Make the base of the config.json in `folder` without weights, and put the adapter on it.

    Raise ConfigError with the key to change if a library refuses, DataError for a wrong
    config.json.
    """
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    from job.training.compiled import find_layers

    if config.publish.merged:
        _check_mergeable(folder, config)
    is_sharded = config.training.distribution == "fsdp"
    quantization = read_quantization(folder, config.model.base, config.model)
    check_possible(folder, config.model.base, quantization, is_sharded)
    with blaming_the_config():
        facts, model = facts_of(folder, config.model)
        adapter = lora_config(config.lora, model)
        if not config.writes_summaries:
            add_head(model)
            adapter = reward_config(config.lora, model)
        # DoRA computes the norms of weights, which are not here.
        adapter.use_dora = False
        # Else the adapter of a large base is allocated and filled for nothing: gigabytes.
        tuned = get_peft_model(model, adapter, low_cpu_mem_usage=True)
        if not config.writes_summaries:
            # By the config in the folder: that of a model without its tower may be another.
            whole = model_config(folder, config.model.base, config.model)
            check_scorable(whole, config.model.base, tuned.base_model.targeted_module_names)
    if config.training.compile:
        find_layers(tuned)
    check_budget(config.generation, facts.context)

    trained = sum(each.numel() for each in tuned.parameters() if each.requires_grad)
    if config.lora.variant == "dora":
        # It has a magnitude for each output.
        layers = [each for each in tuned.modules() if isinstance(each, LoraLayer)]
        trained += sum(layer.out_features for layer in layers)
    return Examined(facts, len(tuned.base_model.targeted_module_names), trained)


def _check_mergeable(folder: Path, config: TrainConfig) -> None:
    """Raise ConfigError if the base's own quantization cannot be undone to merge an adapter."""
    method = METHODS.get(base_quantization(folder) or "")
    if method is not None and not method.is_mergeable:
        raise ConfigError(
            f"publish.merged: {config.model.base} is quantized, and its weights cannot be read in "
            "16 bits to merge an adapter into them: set publish.merged: false, or take the base "
            "that it was made from"
        )
