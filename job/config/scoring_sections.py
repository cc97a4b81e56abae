"""The `evaluation` section: what is scored, with which metrics, and against whom.

Help texts are whole sentences. They are the source of docs/configuration.md and of the JSON Schema.
"""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from job.config.sections import Name, RewardModelSection, Section, Uri, Uris


class MetricModelSection(Section):
    """A local model that a metric reads texts with. No code of its repository runs."""

    model: Uri = Field(
        description="Hub id, s3:// prefix or folder of the model. Only safetensors weights are "
        "loaded, in float32."
    )
    revision: str | None = Field(
        None, description="Revision of a Hub model: a commit, tag or branch."
    )


class FaithfulnessModelSection(MetricModelSection):
    """The classifier of what a conversation supports."""

    label: Name | None = Field(
        None,
        description="Name of the class that means that the sentence is supported, by id2label of "
        "the model's config.json. null finds a name such as entailment, consistent or supported.",
    )


class BertscoreModelSection(MetricModelSection):
    """The model whose token vectors BERTScore compares."""

    layer: int | None = Field(
        None,
        ge=1,
        description="Layer after which vectors are compared. null is the last. Published "
        "BERTScores take one of those before it, such as 17 of roberta-large.",
    )


class ScoringRewardModelSection(RewardModelSection):
    """The reward model that scores summaries, and the loading of its base."""

    pairs: Uris = Field(
        description="Pairs of a chosen and a rejected summary, as pairs/ of `recap feedback`, that "
        "the reward model was not trained on: a conversation of its training, or of an "
        "evaluation's `train`, ends the command. Its agreement with people on them stands beside "
        "its scores."
    )


# Of the systems that an evaluation scores by itself, and the words of a gate for groups of them.
NAMES_OF_SYSTEMS = (
    "tuned",
    "base without adapter",
    "champion",
    "given file",
    "as trained",
    "constant sentence",
    "lead-2",
    "first and last turn",
    "human",
    "floors",
    "base",
    "others",
)


MaxConversations = Annotated[
    int | None,
    Field(
        ge=1,
        description="Maximum number of conversations that are summarized and scored. null is all "
        "of them.",
    ),
]
BaseWithoutAdapter = Annotated[
    bool, Field(description="Score the base without the adapter too, which takes as long again.")
]


class ScoringSection(Section):
    """Scoring of summaries."""

    max_conversations: MaxConversations = 200
    base_without_adapter: BaseWithoutAdapter = False
    as_trained: bool = Field(
        False,
        description="Score the weights in the training's memory too, before they are served as "
        "`serve` says. It is for recap train.",
    )
    others: dict[str, Uri] = Field(
        {},
        description="Files of other systems' summaries by name, to compare with: JSON lines with "
        "id and summary, or a folder of parts. Each conversation that is scored needs a summary.",
    )
    bootstrap_samples: int = Field(
        1000, ge=100, description="Number of resamples for the 95% intervals."
    )
    bertscore_model: BertscoreModelSection | None = Field(
        None, description="Model for BERTScore. null leaves the metric out."
    )
    faithfulness_model: FaithfulnessModelSection | None = Field(
        None,
        description="Classifier for faithfulness: whether a conversation supports what its summary "
        "says. null leaves the metric out.",
    )
    reward_model: ScoringRewardModelSection | None = Field(
        None,
        description="Reward model whose scores of summaries are a metric. null leaves it out.",
    )
    faithfulness_labels: Uri | None = Field(
        None,
        description="Summaries that people judged, to measure how far the classifier agrees with "
        "them: a JSONL file with id, summary and label (true if faithful, or 0 to 1). null shows "
        "faithfulness as uncalibrated.",
    )

    @field_validator("others")
    @classmethod
    def _names_are_free(cls, others: dict[str, str]) -> dict[str, str]:
        for name in others:
            if name in NAMES_OF_SYSTEMS or not name.strip() or not name.isprintable():
                taken = ", ".join(NAMES_OF_SYSTEMS)
                raise ValueError(
                    f"'{name}' cannot be the name of another system: give one of printable "
                    f"characters that is none of {taken}"
                )
        return others

    @model_validator(mode="after")
    def _labels_are_for_a_model(self) -> Self:
        if self.faithfulness_labels is not None and self.faithfulness_model is None:
            raise ValueError(
                "faithfulness_labels is set, but there is no faithfulness_model to compare with "
                "them: set one, or remove faithfulness_labels"
            )
        return self


class EvaluationScoringSection(ScoringSection):
    """Scoring of summaries."""

    max_conversations: MaxConversations = None
    base_without_adapter: BaseWithoutAdapter = True
