"""What a finished output was made from: two runs with the same identity would leave the same records there.

Knows nothing of where the output is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import CsvOutputSection, names_one_file, reading_identity, to_plain
from job.identity import differences
from job.storage.open import InputFile
from job.summarization.summarizer import Digests

SPEED_ONLY = {"max_batch_tokens", "max_batch_size"}  # of generation: how fast, not what

SELECTION = ("include", "exclude")  # of data: which files are read, and those are told by `input`
OTHERS = ("adapter_weights", "long_conversations", "cut_summaries", "redaction", "skip_done")


def identity(
    config: SummarizeConfig, files: Sequence[InputFile], digests: Digests
) -> dict[str, Any]:
    """Input files with size and version, weights by digest, and every setting that decides what is written."""
    plain, reading = to_plain(config), reading_identity(config.data)
    return {
        "input": {file.uri: f"{file.size} bytes, version {file.version}" for file in files},
        "weights": asdict(digests),
        "model": {key: plain["model"][key] for key in ("quantization", "dtype", "attention")},
        "data": {key: value for key, value in reading.items() if key not in SELECTION},
        "prompt": plain["prompt"],
        "generation": {
            key: value for key, value in plain["generation"].items() if key not in SPEED_ONLY
        },
        **{key: plain[key] for key in OTHERS},
        **_csv_output(config),
    }


def _csv_output(config: SummarizeConfig) -> dict[str, Any]:
    """Return how a .csv output is written, unless by default, as outputs of before were."""
    is_csv = names_one_file(config.output) and config.output.lower().endswith(".csv")
    section = to_plain(config.csv_output)
    return {"csv_output": section} if is_csv and config.csv_output != CsvOutputSection() else {}


def selection(config: SummarizeConfig) -> dict[str, Any]:
    """Return the patterns of the input that are set: with others, a night under way is cut anew."""
    data = to_plain(config)["data"]
    return {key: data[key] for key in SELECTION if data[key]}


def late_files(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Files that only the second identity has, where all else is the same in both; else nothing."""
    known = {uri: version for uri, version in here["input"].items() if uri in there["input"]}
    is_same = not differences(there, {**here, "input": known})
    return [uri for uri in here["input"] if uri not in known] if is_same else []
