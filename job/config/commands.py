"""The whole config of each command: its keys and sections, and the checks across them."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from job.config.candidates_section import NightGenerationSection
from job.config.challenger_section import ONE_MERGED_ADAPTER, ChallengerSection
from job.config.data_sections import DataSection, ReadingSection
from job.config.feedback_sections import FeedbackLimitsSection, FeedbackSplitSection, FieldsSection
from job.config.gate_sections import PromotionSection
from job.config.limits_section import TrainLimitsSection
from job.config.method_sections import JUDGED, METHOD, Judged, Method, with_own_learning_rate
from job.config.scoring_sections import (
    EvaluationScoringSection,
    FaithfulnessModelSection,
    ScoringSection,
)
from job.config.sections import (
    AdapterModelSection,
    ChunksSection,
    CsvOutputSection,
    GenerationSection,
    ModelSection,
    PromptSection,
    RunName,
    Section,
    StorageSection,
    SummarizeLimitsSection,
    Uri,
    Uris,
    as_list,
    check_folder,
    check_not_above,
    looks_like_a_file,
    names_one_file,
)
from job.config.serving_section import (
    AdapterDigest,
    AdapterWeights,
    EngineName,
    LongConversations,
    Redaction,
    ServeSection,
    TensorParallel,
    check_serving,
)
from job.config.training_sections import LoraSection, PublishSection, TrainingSection
from job.config.watch_config import WatchConfig


class TrainConfig(Section):
    """`recap train`: fine-tune, evaluate, publish the adapter under `<output>/<run>/`."""

    run: RunName = Field(description="Name of the run, and of its folder below output.")
    method: Method = METHOD
    model: ModelSection
    data: DataSection
    output: Uri = Field(description="Folder or s3:// prefix of the runs.")
    prompt: PromptSection = PromptSection()
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()
    serve: ServeSection = ServeSection()
    evaluation: ScoringSection = ScoringSection()
    publish: PublishSection = PublishSection()
    limits: TrainLimitsSection = TrainLimitsSection()
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, uri: str) -> str:
        return check_folder(uri)

    _learning_rate_of_the_method = model_validator(mode="before")(with_own_learning_rate)

    @property
    def judged(self) -> Judged | None:
        """The kind of answers that the method learns from, None for references."""
        return JUDGED[self.method]

    @property
    def writes_summaries(self) -> bool:
        """True unless it is a reward model."""
        return self.method != "reward"

    @model_validator(mode="after")
    def _the_adapters_own_weights_are_scored_as_trained(self) -> Self:
        if self.evaluation.as_trained and self.training.distribution == "fsdp":
            raise ValueError(
                "evaluation.as_trained scores the model in the memory of one process, and "
                "training.distribution: fsdp shares it between several: remove one of them"
            )
        if self.evaluation.as_trained and self.training.adapter_from == "best_metric":
            raise ValueError(
                "evaluation.as_trained scores the weights in memory, which are those of the last "
                "step, and training.adapter_from: best_metric chooses later: remove one of them"
            )
        return self


class SummarizeConfig(Section):
    """`recap summarize`: one summary or one reject for each record of the input."""

    run: RunName = Field(description="Name of the run in logs and in the manifest.")
    input: Uris = Field(
        description="Conversations to summarize: a file, a prefix, or a list of them."
    )
    output: Uri = Field(
        description="Folder or prefix for the summaries, or one file whose name ends in .jsonl, "
        ".csv or .parquet."
    )
    adapter: Uri | None = Field(
        None,
        description="Folder, s3:// prefix or Hub id of the adapter, or the pointer to the champion "
        "(a file that ends in .json), which a night resolves once. null summarizes with the base "
        "alone.",
    )
    adapter_digest: AdapterDigest | None = Field(
        None,
        description="Digest of the adapter, or its first 12 or more digits. The log and the "
        "manifest of a run show it. An adapter with another digest ends the run with 65.",
    )
    challenger: ChallengerSection | None = Field(
        None,
        description="Another adapter that summarizes some of the conversations: to try it before "
        "it is promoted. null tries none.",
    )
    model: AdapterModelSection = AdapterModelSection()
    data: ReadingSection = ReadingSection()
    prompt: PromptSection | None = Field(
        None,
        description="How a conversation becomes the model's input. It is allowed only without an "
        "adapter, which has its own.",
    )
    engine: EngineName = "auto"
    tensor_parallel: TensorParallel = 1
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Number of workers on each machine: processes that summarize, each with a GPU "
        "of its own (or with as many as tensor_parallel). auto is one for each GPU that is "
        "visible, and 1 without a GPU. A number is for fewer, or for CPUs, which the workers "
        "share.",
    )
    adapter_weights: AdapterWeights = "separate"
    generation: NightGenerationSection = NightGenerationSection()
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = Field(
        "keep_ends",
        description="What to do with conversations that are too long for the model. keep_ends "
        "drops whole turns from the middle. reject makes them rejects. hierarchical summarizes "
        "parts, and then the summaries of the parts.",
    )
    cut_summaries: Literal["keep", "reject"] = Field(
        "keep",
        description="What to do with summaries that generation.max_new_tokens cuts off. keep "
        "writes them with finish_reason length. reject makes them rejects.",
    )
    redaction: Redaction = None
    skip_done: Uris | None = Field(
        None,
        description="Outputs of earlier runs. A conversation that they summarized, unchanged and "
        "with the same weights and settings, is skipped.",
    )
    chunks: ChunksSection = ChunksSection()
    shards: int | None = Field(
        None,
        ge=1,
        description="Number of machines that share the input. null is the number of --shard or of "
        "the scheduler, or else 1.",
    )
    cost_per_hour: float | None = Field(
        None,
        gt=0,
        description="Cost of one machine for an hour, in any currency. Its workers share it. The "
        "manifest then has the cost of 1,000 records, by the hours spent on committed chunks. It "
        "leaves out the time for loading the model, cutting the input and assembling the output, "
        "and what killed workers lost.",
    )
    report: bool = Field(
        True,
        description="Write report.html beside the manifest: a page for people with counts, "
        "rejects, lengths, cost and 20 random summaries beside their conversations, which are "
        "redacted if `redaction` is set.",
    )
    faithfulness_model: FaithfulnessModelSection | None = Field(
        None,
        description="Classifier for faithfulness: whether a conversation supports what its summary "
        "says. The night scores its sample of about 200 summaries with it after they are written. "
        "null leaves the figure out.",
    )
    csv_output: CsvOutputSection = CsvOutputSection()
    limits: SummarizeLimitsSection = SummarizeLimitsSection()
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_can_be_written(cls, uri: str) -> str:
        if looks_like_a_file(uri) and not names_one_file(uri):
            raise ValueError(
                f"'{uri}' would be a folder of that name; one file of summaries ends in .jsonl, "
                ".csv or .parquet and "
                "is not compressed; end it with a slash if it is to be a folder"
            )
        return uri

    @model_validator(mode="after")
    def _something_generates(self) -> Self:
        if self.adapter is None and self.model.base is None:
            raise ValueError("neither adapter nor model.base is set: set what is to summarize")
        check_serving(
            self.model.quantization, self.engine, self.adapter_weights, self.tensor_parallel
        )
        if self.adapter is None and self.adapter_digest is not None:
            raise ValueError(
                "adapter_digest is set, but there is no adapter: set adapter, or remove "
                "adapter_digest"
            )
        if self.adapter is not None and self.prompt is not None:
            raise ValueError(
                "prompt is set, but the adapter carries the one it was trained with: remove prompt"
            )
        if self.challenger is not None and self.adapter_weights == "merged":
            raise ValueError(ONE_MERGED_ADAPTER)
        return self


class EvaluateConfig(Section):
    """`recap evaluate`: score an adapter, or a file of summaries, against references and floors."""

    run: RunName = Field(description="Name of the evaluation in logs and in the report.")
    input: Uris = Field(
        description="Conversations with reference summaries: a file, a prefix, or a list of them."
    )
    output: Uri = Field(
        description="Folder or prefix for evaluation.json, report.html and summaries.jsonl."
    )
    adapter: Uri | None = Field(
        None,
        description="Folder, s3:// prefix or Hub id of the adapter to score, or the pointer to the "
        "champion (a file that ends in .json).",
    )
    summaries: Uri | None = Field(
        None,
        description="Summaries to score instead of an adapter: a JSONL file with id and summary, "
        "or a folder of parts.",
    )
    champion: Uri | None = Field(
        None,
        description="Adapter that serves, or its pointer (.json): it summarizes the same "
        "conversations with its own settings, and is compared. null is publish.champion.",
    )
    train: Uris | None = Field(
        None,
        description="Training conversations, from which the floor of a constant sentence is "
        "made. null makes it from the references.",
    )
    model: AdapterModelSection = AdapterModelSection()
    data: ReadingSection = ReadingSection()
    engine: EngineName = "auto"
    tensor_parallel: TensorParallel = 1
    adapter_weights: AdapterWeights = "separate"
    generation: GenerationSection = GenerationSection()
    long_conversations: LongConversations = "keep_ends"
    redaction: Redaction = None
    evaluation: EvaluationScoringSection = EvaluationScoringSection()
    publish: PromotionSection = PromotionSection()
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, uri: str) -> str:
        return check_folder(uri, ": an evaluation leaves several files")

    @model_validator(mode="after")
    def _one_thing_to_score(self) -> Self:
        if (self.adapter is None) == (self.summaries is None):
            raise ValueError(
                "exactly one of adapter and summaries must be set: it is what is scored"
            )
        check_serving(
            self.model.quantization, self.engine, self.adapter_weights, self.tensor_parallel
        )
        if self.evaluation.as_trained:
            raise ValueError(
                "evaluation.as_trained is for recap train: an adapter that was published has no "
                "weights in a training's memory; remove it"
            )
        return self


class FeedbackConfig(Section):
    """`recap feedback`: join agents' verdicts with summaries; report; write data to train on."""

    run: RunName = Field(description="Name of the run in logs, in the report and in the manifest.")
    verdicts: Uris = Field(
        description="Agents' verdicts: a file, a prefix, or a list of them. JSON lines, CSV and "
        "Parquet are read, plain or compressed."
    )
    nights: Uris = Field(
        description="Outputs of recap summarize that the agents have read: an output, a prefix "
        "below which outputs are, or a list of them."
    )
    anchors: Uris | None = Field(
        None,
        description="Folder or prefix of the anchors of recap watch, or a list of them. No agent "
        "has read them, so they are no nights here. They may lie below nights. None needs to be "
        "there.",
    )
    output: Uri = Field(
        description="Folder or prefix for the report and for the folders sft, pairs and thumbs."
    )
    conversations_at: Uris | None = Field(
        None,
        description="Conversations of the nights, if they are not where the nights read them. They "
        "are found by their content.",
    )
    fields: FieldsSection = FieldsSection()
    evaluation_sets: Uris | None = Field(
        None,
        description="Conversations that evaluations use: a file, a prefix, or a list of them. What "
        "repeats one of them, exactly or nearly, is left out of the data.",
    )
    champion: Uri | None = Field(
        None,
        description="Adapter that serves, or its pointer (.json). The conversations that it was "
        "judged on, by its own records, are evaluation sets too.",
    )
    data: ReadingSection = ReadingSection()
    split: FeedbackSplitSection = FeedbackSplitSection()
    limits: FeedbackLimitsSection = FeedbackLimitsSection()
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, uri: str) -> str:
        return check_folder(uri, ": feedback leaves several files")

    @field_validator("anchors")
    @classmethod
    def _anchors_leave_nights(
        cls, anchors: str | list[str] | None, info: ValidationInfo
    ) -> str | list[str] | None:
        for folder in as_list(anchors or []):
            for night in as_list(info.data.get("nights") or []):
                check_not_above(folder, night)
        return anchors


Command = Literal["train", "summarize", "evaluate", "feedback", "watch"]
ModelConfig = TrainConfig | SummarizeConfig | EvaluateConfig  # of the commands that run a model
Config = ModelConfig | FeedbackConfig | WatchConfig
CONFIGS: dict[Command, type[Config]] = {
    "train": TrainConfig,
    "summarize": SummarizeConfig,
    "evaluate": EvaluateConfig,
    "feedback": FeedbackConfig,
    "watch": WatchConfig,
}


def command_of(config: Config) -> Command:
    """Return the command that a config is for."""
    return next(command for command, model in CONFIGS.items() if isinstance(config, model))
