"""The sections that configs are made of: every key with its type, bounds, default and one line of help.

The help lines are the source of docs/configuration.md and of the JSON Schema. Knows nothing of torch or boto3.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Name = Annotated[str, Field(min_length=1)]
Uri = Annotated[str, Field(min_length=1)]
Uris = Uri | Annotated[list[Uri], Field(min_length=1)]
OneOrMoreNames = Name | Annotated[list[Name], Field(min_length=1)]
Quantization = Literal["nf4-double", "nf4"]
DType = Literal["auto", "bfloat16", "float16", "float32"]
ONE_FILE = (".jsonl", ".csv", ".parquet")  # how the name of an output ends that is one file
# How no folder is named by intention: what else people call files of records, tables and texts.
FILE_LIKE = frozenset(
    [
        *ONE_FILE, ".json", ".ndjson", ".jsonlines", ".jsons", ".jl", ".geojson", ".tsv", ".tab", ".psv", ".txt",
        ".text", ".log", ".dat", ".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".numbers", ".doc", ".docx", ".odt",
        ".rtf", ".pdf", ".md", ".html", ".htm", ".xml", ".yaml", ".yml", ".toml", ".orc", ".avro", ".arrow",
        ".feather", ".ipc", ".pq", ".parq", ".h5", ".hdf5", ".npy", ".npz", ".pkl", ".pickle", ".db", ".sqlite",
        ".sqlite3", ".duckdb", ".gz", ".gzip", ".zst", ".bz2", ".xz", ".lz4", ".snappy", ".br", ".zip", ".7z", ".tar",
        ".tgz", ".tbz2", ".txz",
    ]
)  # fmt: skip
LARGEST_SEED = 2**32 - 1  # numpy takes no larger one


class Section(BaseModel):
    """A part of a config: frozen, unknown keys are mistakes, and so are numbers that are none (.inf, .nan, true)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Not by strict types: YAML 1.1 reads 1e-4 as text, which is a number to everybody else.
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise PydanticCustomError("no_truth_value", "true and false are no value of this key")
        return value


class ModelSection(Section):
    """The base model and how it is loaded."""

    base: Uri = Field(
        description="Hub id, s3:// prefix or folder of the base model (safetensors only)."
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch of a Hub id; null is its main branch."
    )
    quantization: Quantization | None = Field(
        "nf4-double",
        description="4-bit weights: nf4 with or without double quantization; null loads them as dtype.",
    )
    dtype: DType = Field(
        "auto",
        description="Dtype of computation; auto is bfloat16 where the GPU has it, else float16; float32 on CPU.",
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="Attention implementation."
    )
    trust_remote_code: bool = Field(
        False,
        description="Run code from the model's repository; only with a revision pinned to a commit.",
    )

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        _check_pinned(self.trust_remote_code, self.revision)
        return self


class AdapterModelSection(Section):
    """How the base is loaded for an adapter; the base itself comes from the adapter's manifest."""

    base: Uri | None = Field(
        None,
        description="The base from another place; it must be the one that the adapter was trained on.",
    )
    revision: str | None = Field(
        None,
        description="Revision of a base given here; without one, it must be the one that the adapter records.",
    )
    quantization: Quantization | None = Field(
        None, description="4-bit weights (less memory, slower); null loads them as dtype."
    )
    dtype: DType = Field("auto", description="Dtype of computation.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="Attention implementation."
    )
    trust_remote_code: bool = Field(
        False,
        description="Run code from the base's repository; only with a revision pinned to a commit.",
    )

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        _check_pinned(self.trust_remote_code, self.revision)
        return self


class PromptSection(Section):
    """How a conversation becomes the model's input; travels with the adapter."""

    style: Literal["instruction", "chat"] = Field(
        "instruction",
        description="The classic instruction template, or the base's own chat template.",
    )
    system: str = Field(
        "Below is a conversation between a human and an AI agent. Write a summary of the conversation.",
        min_length=1,
        description="What the model is told to do.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="How roles are written in the prompt, e.g. {customer: user}; else their name.",
    )


class GenerationSection(Section):
    """How summaries are generated."""

    max_new_tokens: int = Field(128, ge=1, description="Tokens of a summary at the most.")
    temperature: float = Field(
        0.0, ge=0, description="0 is greedy: the most likely token each time."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus of the sampling; only with a temperature above 0."
    )
    seed: int = Field(42, ge=0, le=LARGEST_SEED, description="Seed of the sampling.")
    max_input_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens of a prompt at the most; null is what the model's context leaves; with vLLM, as much of "
        "that as fits into memory.",
    )
    max_batch_tokens: int = Field(
        16384,
        ge=16,
        description="Tokens of a padded batch, prompt and summary together; a longer row goes alone.",
    )
    max_batch_size: int = Field(64, ge=1, description="Rows of a batch at the most.")


class ScoringSection(Section):
    """How an adapter is scored after training."""

    max_conversations: int | None = Field(
        200,
        ge=1,
        description="Validation conversations that are summarized and scored; null is all.",
    )
    base_without_adapter: bool = Field(
        False, description="Score the base without adapter too (as long again)."
    )
    bootstrap_samples: int = Field(1000, ge=100, description="Resamples behind the 95% intervals.")


class SummarizeLimitsSection(Section):
    """What a summarization run puts up with."""

    max_reject_fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A greater share of rejected records ends the run with 65; good ones are kept.",
    )
    min_records: int = Field(
        1,
        ge=0,
        description="Fewer records than this end the run with 66; 0 lets an input be empty. Where `input` holds a "
        "variable such as {date}, the default is 0.",
    )


class ChunksSection(Section):
    """How much of the input is committed at a time: minutes of work, which is what a stop can cost."""

    records: int = Field(
        2048, ge=1, description="A chunk ends with the record that makes it so many,"
    )
    megabytes: float = Field(
        16,
        gt=0,
        description="or so large. Parquet is cut between row groups, files that are compressed or on the Hub not.",
    )


class CsvOutputSection(Section):
    """How summaries are written where the output is a .csv file."""

    formulas: Literal["escape", "keep"] = Field(
        "escape",
        description="Cells that a spreadsheet would run as a formula (they begin with = + - @, a tab or a line break, "
        "and are no number): escape puts an apostrophe before them; keep writes them as they are.",
    )
    byte_order_mark: bool = Field(
        False, description="Begin the file with the mark by which Excel recognizes UTF-8."
    )


class StorageSection(Section):
    """The S3 service, where it is not AWS or not what the environment says."""

    endpoint_url: str | None = Field(
        None, description="URL of the service; null is AWS_ENDPOINT_URL(_S3), or AWS."
    )
    region: str | None = Field(None, description="Region; null is the environment's.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Bucket in the path or in the host name."
    )
    timeout_seconds: float = Field(
        60, gt=0, description="After so long without a byte, a request is tried again."
    )

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint_holds_no_secret(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if "@" in parts.netloc or parts.query or parts.fragment:  # the value itself is not shown
            raise ValueError(
                "is more than http(s)://host:port: take out user, password and what follows a ? or #; "
                "credentials come from the environment (the AWS credential chain)"
            )
        return value


def names_one_file(uri: str) -> bool:
    """Whether an output is one file: by its ending, in upper or lower case; a slash at the end says folder."""
    return _ending(uri) in ONE_FILE


def looks_like_a_file(uri: str) -> bool:
    """Whether nobody would call a folder so."""
    return _ending(uri) in FILE_LIKE


def _check_pinned(trust_remote_code: bool, revision: str | None) -> None:
    if trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(
            "trust_remote_code runs code from the model's repository: pin model.revision to a 40-digit commit"
        )


def as_list(value: str | list[str]) -> list[str]:
    """A key that takes one or several, as several."""
    return [value] if isinstance(value, str) else value


def to_plain(section: BaseModel) -> dict[str, Any]:
    """The section as plain YAML types, for saving and for fingerprints."""
    return section.model_dump(mode="json")


def _ending(uri: str) -> str:
    return "" if uri.endswith("/") else PurePosixPath(uri).suffix.lower()
