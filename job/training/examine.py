"""Ask a base, by its config alone, whether this training can be done with it.

The model is made without weights and gets its adapter: what a library refuses, it refuses now, and
not after the weights were fetched and the data encoded.
"""

from dataclasses import dataclass
from pathlib import Path

from job.config.commands import TrainConfig
from job.errors import ConfigError
from job.model.adapter import lora_config
from job.model.families import experts
from job.model.quantization import FourBitShare, four_bit_share
from job.model.skeleton import make_skeleton
from job.training.causes import blaming_the_config

MIN_SHARE_WORTH_NO_WORD = 0.9  # of the linear parameters in 4 bits


@dataclass(frozen=True)
class Examined:
    """The facts of a base with the adapter of a config."""

    embeddings: int  # tokens that have one
    has_experts: bool
    four_bit: FourBitShare
    adapted_modules: int
    trained_parameters: int

    def adapter_line(self) -> str:
        """Return what is trained, for people."""
        return f"{self.trained_parameters:,} parameters in {self.adapted_modules:,} modules"

    def four_bit_line(self) -> str:
        """Return how much of the base is in 4 bits, for people."""
        share = self.four_bit
        percent = round(100 * share.four_bit / share.total)
        line = f"{share.four_bit:,} of {share.total:,} parameters ({percent}%)"
        if self.has_experts and share.of_linear < MIN_SHARE_WORTH_NO_WORD:
            return f"{line}: experts stay in 16 bits"
        return line


def examine_base(folder: Path, config: TrainConfig) -> Examined:
    """Make the base of the config.json in `folder` without weights, and put the adapter on it.

    Raise ConfigError with the key to change if a library refuses, DataError for a wrong
    config.json.
    """
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    with blaming_the_config():
        model = make_skeleton(folder, config.model)
        embedding = model.get_input_embeddings()
        if embedding is None or not hasattr(embedding, "num_embeddings"):
            raise ConfigError("model.base: the model has no embedding of tokens")
        share = four_bit_share(model)
        has_experts = bool(experts(model))
        adapter = lora_config(config.lora, model)
        # DoRA computes the norms of weights, which are not here.
        adapter.use_dora = False
        tuned = get_peft_model(model, adapter)

    trained = sum(each.numel() for each in tuned.parameters() if each.requires_grad)
    if config.lora.variant == "dora":
        # It has a magnitude for each output.
        layers = [each for each in tuned.modules() if isinstance(each, LoraLayer)]
        trained += sum(layer.out_features for layer in layers)
    return Examined(
        embeddings=embedding.num_embeddings,
        has_experts=has_experts,
        four_bit=share,
        adapted_modules=len(tuned.base_model.targeted_module_names),
        trained_parameters=trained,
    )
