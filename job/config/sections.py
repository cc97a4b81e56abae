"""The sections that configs of several commands have: each key with its type, bounds and help.

Help texts are whole sentences. They are the source of docs/configuration.md and of the JSON Schema.
`data_sections` and `training_sections` have the other sections.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError


def _not_below_home(uri: str) -> str:
    if uri.startswith("~"):
        raise ValueError(
            f"'{uri}': ~ is the shell's name of a home folder, and is not replaced here; write the "
            "whole path"
        )
    return uri


Name = Annotated[str, Field(min_length=1)]
Uri = Annotated[str, Field(min_length=1), AfterValidator(_not_below_home)]
Uris = Uri | Annotated[list[Uri], Field(min_length=1)]
OneOrMoreNames = Name | Annotated[list[Name], Field(min_length=1)]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Quantization = Literal["nf4-double", "nf4"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"]
DType = Literal["auto", "bfloat16", "float16", "float32"]

ONE_FILE = (".jsonl", ".csv", ".parquet")  # endings of outputs that are one file
# Endings that nobody gives to a folder on purpose: those of files of records, tables and texts.
FILE_LIKE = frozenset(
    [
        *ONE_FILE, ".json", ".ndjson", ".jsonlines", ".jsons", ".jl", ".geojson", ".tsv", ".tab",
        ".psv", ".txt", ".text", ".log", ".dat", ".xls", ".xlsx", ".xlsm", ".xlsb", ".ods",
        ".numbers", ".doc", ".docx", ".odt", ".rtf", ".pdf", ".md", ".html", ".htm", ".xml",
        ".yaml", ".yml", ".toml", ".orc", ".avro", ".arrow", ".feather", ".ipc", ".pq", ".parq",
        ".h5", ".hdf5", ".npy", ".npz", ".pkl", ".pickle", ".db", ".sqlite", ".sqlite3", ".duckdb",
        ".gz", ".gzip", ".zst", ".bz2", ".xz", ".lz4", ".snappy", ".br", ".zip", ".7z", ".tar",
        ".tgz", ".tbz2", ".txz",
    ]
)  # fmt: skip
LARGEST_SEED = 2**32 - 1  # of numpy


class Section(BaseModel):
    """A part of a config. Frozen. Unknown keys, .inf, .nan and true for 1 are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Not by pydantic's strict types: YAML 1.1 reads 1e-4 as text, which must become a number.
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise PydanticCustomError("no_truth_value", "true and false are no value of this key")
        return value


class ModelSection(Section):
    """The base model and how it is loaded."""

    base: Uri = Field(
        description="Hub id, s3:// prefix or folder of the base model. Only safetensors weights "
        "are loaded."
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch, if the base is a Hub id. null is its main branch."
    )
    quantization: Quantization | None = Field(
        "nf4-double",
        description="Quantization of the weights to 4 bits: nf4, or nf4-double, which quantizes "
        "the constants of quantization too. null loads the weights in dtype. A base that is "
        "quantized already keeps its own quantization, or is read into dtype first.",
    )
    dtype: DType = Field(
        "auto",
        description="Data type of computation. auto is bfloat16 on GPUs that support it, float16 "
        "on other GPUs, and float32 on CPU. float32 is never rounded to TF32.",
    )
    attention: Attention = Field(
        "auto",
        description="Implementation of attention. auto is sdpa where the model has it, else eager.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Run code from the model's repository. It requires a revision that is pinned "
        "to a commit. Code that the repository takes from another one is refused.",
    )

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        _check_pinned(self.trust_remote_code, self.revision)
        return self


class AdapterModelSection(Section):
    """Loading of the base model. An adapter's manifest names its base."""

    base: Uri | None = Field(
        None,
        description="Where to load the base from, if not from where the adapter was trained. It "
        "must be the same base.",
    )
    revision: str | None = Field(
        None,
        description="Commit, tag or branch of the base given here. With null, the base must be "
        "the one that the adapter records.",
    )
    quantization: Quantization | None = Field(
        None,
        description="Quantization of the weights to 4 bits, which needs less memory and is "
        "slower. null loads them in dtype. A base that is quantized already keeps its own "
        "quantization, or is read into dtype first.",
    )
    dtype: DType = Field(
        "auto",
        description="Data type of computation. auto is bfloat16 on GPUs that support it, float16 "
        "on other GPUs, and float32 on CPU. float32 is never rounded to TF32.",
    )
    attention: Attention = Field(
        "auto",
        description="Implementation of attention. auto is sdpa where the model has it, else eager.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Run code from the base's repository. It requires a revision that is pinned "
        "to a commit. Code that the repository takes from another one is refused.",
    )

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        _check_pinned(self.trust_remote_code, self.revision)
        return self


class RewardModelSection(AdapterModelSection):
    """A reward model, and the loading of its base."""

    adapter: Uri = Field(
        description="Folder, s3:// prefix or Hub id of the reward model: the adapter of a training "
        "with method: reward."
    )


class PromptSection(Section):
    """Form of the model's input. It is published with the adapter."""

    style: Literal["instruction", "chat"] = Field(
        "instruction",
        description="Form of the prompt: the classic instruction template, or the base's own "
        "chat template.",
    )
    system: str = Field(
        "Below is a conversation between a human and an AI agent. Write a summary of the "
        "conversation.",
        min_length=1,
        description="Instruction to the model, at the start of the prompt.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Names of roles in the prompt, such as {customer: user}. A role that is not "
        "listed keeps its name.",
    )


class GenerationSection(Section):
    """Generation of summaries."""

    max_new_tokens: int = Field(128, ge=1, description="Maximum number of tokens in a summary.")
    temperature: float = Field(
        0.0, ge=0, description="Sampling temperature. 0 takes the most likely token each time."
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the probability that sampling draws from. It has an effect only if "
        "temperature is above 0.",
    )
    seed: int = Field(42, ge=0, le=LARGEST_SEED, description="Seed of the sampling.")
    max_input_tokens: int | None = Field(
        None,
        ge=16,
        description="Maximum number of tokens in a prompt. null is what the model's context "
        "leaves. With vLLM, null is as much of that as fits into memory.",
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=16,
        description="Maximum number of tokens in a padded batch of the transformers engine, with "
        "prompts and summaries. A longer prompt is a batch of its own. null is as many as fit into "
        "the free memory of the GPU, and 16384 without a GPU.",
    )
    max_batch_size: int = Field(
        256,
        ge=1,
        description="Maximum number of prompts in a batch of the transformers engine.",
    )
    deterministic: bool = Field(
        False,
        description="Generate each summary independently of the prompts beside it. The same night "
        "again then gives the same bytes on the same kind of machine, whatever its shards and "
        "interruptions. vLLM does it on GPUs, with kernels that are slower. The transformers "
        "engine generates for one prompt at a time. No GPU has shown either yet.",
    )


class SummarizeLimitsSection(Section):
    """The limits beyond which a run of summaries ends with an error."""

    max_reject_fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Maximum fraction of records that are rejected. A run with more ends with 65 "
        "and keeps its summaries.",
    )
    min_records: int = Field(
        1,
        ge=0,
        description="Minimum number of records in the input. A run with fewer ends with 66. 0 "
        "allows an empty input, and is the default if `input` has a variable such as {date}.",
    )


class ChunksSection(Section):
    """Amount of input that is committed at a time. A stop costs about as much work."""

    records: int = Field(2048, ge=1, description="Maximum number of records in a chunk.")
    megabytes: float = Field(
        16,
        gt=0,
        description="Maximum size of a chunk in megabytes of input. Parquet files are cut only "
        "between row groups. Files that are compressed, on the Hub or not in UTF-8 are not cut. "
        "Chunks of such files may exceed both limits.",
    )


class CsvOutputSection(Section):
    """Form of the summaries in a .csv file."""

    formulas: Literal["escape", "keep"] = Field(
        "escape",
        description="What to do with cells that a spreadsheet would run as a formula: those that "
        "begin with = + - @, a tab or a line break, and are not a number. escape puts an "
        "apostrophe before them. keep writes them as they are.",
    )
    byte_order_mark: bool = Field(
        False, description="Begin the file with a byte order mark, by which Excel detects UTF-8."
    )


class StorageSection(Section):
    """The S3 service, if it is not AWS or not the one that the environment names."""

    endpoint_url: str | None = Field(
        None,
        description="URL of the service. null is AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL of the "
        "environment, or else AWS.",
    )
    region: str | None = Field(
        None, description="Region of the service. null is the region of the environment."
    )
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Whether the bucket is in the path or in the host name of a URL."
    )
    timeout_seconds: float = Field(
        60,
        gt=0,
        description="Maximum time without a byte of an answer. Then the request is sent again.",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint_holds_no_secret(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        # The message leaves the value out, since it may have a secret.
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "is more than http(s)://host:port: take out user, password and what follows a ? "
                "or #; credentials come from the environment (the AWS credential chain)"
            )
        return value


def names_one_file(uri: str) -> bool:
    """Return True if an output of this name is one file of summaries.

    It is by its ending, in upper or lower case. With a slash at the end it is a folder.
    """
    return _ending(uri) in ONE_FILE


def looks_like_a_file(uri: str) -> bool:
    """Return True if the name is that of a file, and hardly of a folder."""
    return _ending(uri) in FILE_LIKE


def check_not_above(anchors: str | None, nights: str | None) -> str | None:
    """Return `anchors`. Raise ValueError if all nights are below: then all would be left out.

    `nights` is None if it is wrong itself.
    """
    if anchors is None or nights is None:
        return anchors
    if f"{nights.rstrip('/')}/".startswith(f"{anchors.rstrip('/')}/"):
        raise ValueError(
            f"{anchors} has all nights ({nights}), so that no night would count; wanted another "
            "folder, beside nights or below it"
        )
    return anchors


def check_folder(uri: str, why: str = "") -> str:
    """Return the location of a folder; raise ValueError, with `why`, if it has a file's name."""
    if looks_like_a_file(uri):
        raise ValueError(
            f"'{uri}' would be a folder of that name{why}; name a folder, or end it with a slash"
        )
    return uri


def _check_pinned(trust_remote_code: bool, revision: str | None) -> None:
    if trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(
            "trust_remote_code runs code from the model's repository: pin model.revision to a "
            "40-digit commit"
        )


def as_list(value: str | list[str]) -> list[str]:
    """Return the value of a key that accepts one or a list, as a list."""
    return [value] if isinstance(value, str) else value


def model_identity(section: "ModelSection | AdapterModelSection") -> dict[str, Any]:
    """Return the keys of a model as the identity of a run or of a night has them.

    The default of attention was sdpa before there was auto, which is sdpa wherever that is
    possible: what was begun under the old default goes on under the new one.
    """
    plain = to_plain(section)
    if plain["attention"] == "auto":
        plain["attention"] = "sdpa"
    return plain


def to_plain(section: BaseModel) -> dict[str, Any]:
    """Return the section as plain YAML types, for saving and for fingerprints."""
    return section.model_dump(mode="json")


def _ending(uri: str) -> str:
    return "" if uri.endswith("/") else PurePosixPath(uri).suffix.lower()
