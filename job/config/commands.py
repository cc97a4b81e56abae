"""The whole config of each command. Knows nothing of files or overrides (`load` does)."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from job.config.data_sections import DataSection, ReadingSection
from job.config.redaction import RedactionSection
from job.config.sections import (
    AdapterModelSection,
    ChunksSection,
    CsvOutputSection,
    GenerationSection,
    ModelSection,
    PromptSection,
    ScoringSection,
    Section,
    StorageSection,
    SummarizeLimitsSection,
    Uri,
    Uris,
    looks_like_a_file,
    names_one_file,
)
from job.config.training_sections import (
    LoraSection,
    PublishSection,
    TrainingSection,
    TrainLimitsSection,
)

EngineName = Literal["auto", "transformers", "vllm"]
AdapterWeights = Literal["separate", "merged"]
AdapterDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{12,64}$")]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class TrainConfig(Section):
    """`recap train`: fine-tune, evaluate, publish the adapter under `<output>/<run>/`."""

    run: RunName = Field(description="Name of the run, and of its folder below output.")
    model: ModelSection
    data: DataSection
    output: Uri = Field(description="Folder or s3:// prefix that holds the runs.")
    prompt: PromptSection = PromptSection()
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()
    evaluation: ScoringSection = ScoringSection()
    publish: PublishSection = PublishSection()
    limits: TrainLimitsSection = TrainLimitsSection()
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, uri: str) -> str:
        if looks_like_a_file(uri):
            raise ValueError(
                f"'{uri}' would be a folder of that name; name a folder, or end it with a slash"
            )
        return uri


class SummarizeConfig(Section):
    """`recap summarize`: one summary or one reject for each record of the input."""

    run: RunName = Field(description="Name of the run, for logs and the manifest.")
    input: Uris = Field(description="File, prefix, or list of them.")
    output: Uri = Field(
        description="Folder or prefix; or one file that ends in .jsonl, .csv or .parquet."
    )
    adapter: Uri | None = Field(
        None, description="Folder, s3:// prefix or Hub id of an adapter; null is the base alone."
    )
    adapter_digest: AdapterDigest | None = Field(
        None,
        description="Digest of the adapter, or its first 12 digits or more, as the log and the manifest of a night "
        "have it; an adapter with another digest ends the run with 65.",
    )
    model: AdapterModelSection = AdapterModelSection()
    data: ReadingSection = ReadingSection()
    prompt: PromptSection | None = Field(
        None, description="Only without an adapter, which carries its own prompt."
    )
    engine: EngineName = Field(
        "auto",
        description="What generates; auto is vllm where it is installed, can serve the model and is as fast.",
    )
    adapter_weights: AdapterWeights = Field(
        "separate",
        description="The adapter beside its base, or merged into it once, in model.dtype (a little faster, rounded).",
    )
    generation: GenerationSection = GenerationSection()
    long_conversations: Literal["keep_ends", "reject", "hierarchical"] = Field(
        "keep_ends",
        description="Too long for the model: drop whole turns from the middle, reject, or summarize parts and then "
        "their summaries.",
    )
    cut_summaries: Literal["keep", "reject"] = Field(
        "keep",
        description="Summaries that generation.max_new_tokens cut: keep them (finish_reason length), or reject.",
    )
    redaction: RedactionSection | None = Field(
        None,
        description="Replace personal data by placeholders before the model reads it; null is off, {} all kinds.",
    )
    skip_done: Uris | None = Field(
        None,
        description="Earlier outputs: what they summarized with the same weights and settings, unchanged, is skipped.",
    )
    chunks: ChunksSection = ChunksSection()
    shards: int | None = Field(
        None,
        ge=1,
        description="How many workers share the input; null is what --shard or the scheduler says, else 1.",
    )
    cost_per_hour: float | None = Field(
        None,
        gt=0,
        description="What an hour of one worker costs, in any currency (of several on one machine, each its share): "
        "the manifest then tells what 1,000 records cost by the hours spent on committed chunks; loading the model, "
        "cutting the input, putting the output together, and what killed workers lost are not in it.",
    )
    csv_output: CsvOutputSection = CsvOutputSection()
    limits: SummarizeLimitsSection = SummarizeLimitsSection()
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_can_be_written(cls, uri: str) -> str:
        if looks_like_a_file(uri) and not names_one_file(uri):
            raise ValueError(
                f"'{uri}' would be a folder of that name; one file of summaries ends in .jsonl, .csv or .parquet and "
                "is not compressed; end it with a slash if it is to be a folder"
            )
        return uri

    @model_validator(mode="after")
    def _something_generates(self) -> Self:
        if self.adapter is None and self.model.base is None:
            raise ValueError(
                "neither adapter nor model.base is set: one of them must say what summarizes"
            )
        if self.adapter_weights == "merged" and self.model.quantization is not None:
            raise ValueError(
                "adapter_weights: merged is for weights of 16 or 32 bits: merged into 4-bit ones, an adapter says "
                "something else; set model.quantization: null, or adapter_weights: separate"
            )
        if self.adapter is None and self.adapter_digest is not None:
            raise ValueError(
                "adapter_digest is set, but there is no adapter: set adapter, or remove adapter_digest"
            )
        if self.adapter is not None and self.prompt is not None:
            raise ValueError(
                "prompt is set, but the adapter carries the one it was trained with: remove prompt"
            )
        return self


class EvaluateConfig(Section):
    """`recap evaluate`: score an adapter, or a file of summaries, against references and floors."""

    run: RunName = Field(description="Name of the evaluation, for logs and the report.")
    input: Uris = Field(
        description="Conversations with reference summaries: file, prefix, or list of them."
    )
    output: Uri = Field(
        description="Folder or prefix for evaluation.json, report.html and summaries.jsonl."
    )
    adapter: Uri | None = Field(
        None, description="Folder, s3:// prefix or Hub id of the adapter to score."
    )
    summaries: Uri | None = Field(
        None,
        description="Summaries to score instead (JSONL: id, summary): file, or folder of parts.",
    )
    train: Uris | None = Field(
        None,
        description="Training conversations, for the constant-sentence floor; null takes it from the references.",
    )
    model: AdapterModelSection = AdapterModelSection()
    data: ReadingSection = ReadingSection()
    generation: GenerationSection = GenerationSection()
    evaluation: ScoringSection = ScoringSection(max_conversations=None, base_without_adapter=True)
    storage: StorageSection = StorageSection()

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, uri: str) -> str:
        if looks_like_a_file(uri):
            raise ValueError(
                f"'{uri}' would be a folder of that name: an evaluation leaves several files; name a folder, or end it "
                "with a slash"
            )
        return uri

    @model_validator(mode="after")
    def _one_thing_to_score(self) -> Self:
        if (self.adapter is None) == (self.summaries is None):
            raise ValueError(
                "exactly one of adapter and summaries must be set: it is what is scored"
            )
        return self


Command = Literal["train", "summarize", "evaluate"]
CONFIGS: dict[Command, type[TrainConfig] | type[SummarizeConfig] | type[EvaluateConfig]] = {
    "train": TrainConfig,
    "summarize": SummarizeConfig,
    "evaluate": EvaluateConfig,
}
