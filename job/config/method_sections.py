"""The methods of a training: learning from references, pairs or thumbs, and the keys of each."""

from typing import Annotated, Any, Literal

from pydantic import Field

from job.config.sections import Section

Method = Literal["sft", "dpo", "kto", "reward"]
Judged = Literal["pairs", "thumbs"]  # answers, as files have them
METHOD: Any = Field(
    "sft",
    description="What is learned: sft from reference summaries, dpo from pairs of a chosen and "
    "a rejected summary, kto from summaries with a thumb up or down. reward trains a reward model "
    "on pairs: an adapter that scores summaries and writes none.",
)
Beta = Annotated[
    float,
    Field(
        gt=0,
        le=10,
        description="How much the adapter is held to the model that the training starts from. Less "
        "lets it go further.",
    ),
]
# TRL's own advice for adapters; that of references is the key's default.
OWN_LEARNING_RATES: dict[str, float] = {"dpo": 1e-5, "kto": 1e-5, "reward": 1e-4}
# In a pass. Those of dpo are one where the base lets both summaries share their prompt.
SEQUENCES_OF_A_ROW: dict[Method, int] = {"sft": 1, "dpo": 2, "kto": 1, "reward": 2}
JUDGED: dict[Method, Judged | None] = {
    "sft": None, "dpo": "pairs", "kto": "thumbs", "reward": "pairs"
}  # fmt: skip
HAS_REFERENCE: tuple[Method, ...] = ("dpo", "kto")  # compared with the model it starts from


class DpoSection(Section):
    """Learning from pairs (method: dpo)."""

    beta: Beta = 0.1
    sft_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the loss of the chosen summary as a reference, beside the loss of "
        "the pair. Without it (0), both summaries of a pair may become less likely.",
    )
    share_prompts: bool = Field(
        True,
        description="Compute both summaries of a pair in one row, with their prompt once, where "
        "the base allows it. Else they are two sequences, with twice the memory and time.",
    )


class KtoSection(Section):
    """Learning from thumbs (method: kto)."""

    beta: Beta = 0.1
    desirable_weight: float = Field(
        1.0, gt=0, le=100, description="Weight of the loss of summaries with a thumb up."
    )
    undesirable_weight: Literal["auto"] | Annotated[float, Field(gt=0, le=100)] = Field(
        "auto",
        description="Weight of the loss of summaries with a thumb down. auto makes both kinds "
        "weigh the same in all, by their numbers in train.",
    )

    def weights(self, desirable: int, undesirable: int) -> tuple[float, float]:
        """Return the weights of both kinds, of which there are so many rows."""
        if self.undesirable_weight != "auto":
            return self.desirable_weight, self.undesirable_weight
        return self.desirable_weight, self.desirable_weight * desirable / undesirable


def sequences_of_a_row(method: Method, shares_prompts: bool) -> int:
    """Return how many sequences a row of a method has in a pass."""
    return 1 if shares_prompts else SEQUENCES_OF_A_ROW[method]


def with_own_learning_rate(config: Any) -> Any:
    """Return a config before its validation, with the learning rate of its method if it has none.

    What is no config, or no section, is returned as it is: validation says so.
    """
    if not isinstance(config, dict) or config.get("method") not in OWN_LEARNING_RATES:
        return config
    training = config.get("training", {})
    if not isinstance(training, dict) or "learning_rate" in training:
        return config
    own = {"learning_rate": OWN_LEARNING_RATES[config["method"]]}
    return config | {"training": training | own}
