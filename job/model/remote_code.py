"""Refuse a base that names code which the pinned revision of its repository does not cover.

transformers runs code that a base's config files name. A reference such as
`org/other--module.Class` leads to another repository, whose newest commit would be fetched and run:
whoever owns that one could change the code at any time, whatever `model.revision` says.
"""

from typing import Any

from job.errors import ConfigError
from job.model.files import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    BaseFiles,
    entries,
    read_json,
    values,
)

CONFIG_FILES = (CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG, "*processor_config.json")
CODE = "auto_map"
ANOTHER_REPOSITORY = "--"  # between a repository and a class in it

# Keys whose value may name a kernel on the Hub (`org/kernel`): compiled code, which transformers
# fetches without asking for trust in it.
IMPLEMENTATIONS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
    "kernel_config",
)


def check_code(files: BaseFiles, trust_remote_code: bool) -> None:
    """Raise ConfigError if a config file of the base names code of another repository.

    Reads the small config files only; to be called before anything else is fetched. Without
    `trust_remote_code`, no class that `auto_map` names is used, and many bases that transformers
    knows have one.
    """
    for key in files.matching(CONFIG_FILES):
        for name, value in entries(read_json(files, key)):
            if name == CODE and trust_remote_code:
                for reference in _texts(value):
                    _check_reference(reference, f"{files.uri}/{key}")
            if name in IMPLEMENTATIONS:
                for reference in _texts(value):
                    _check_implementation(reference, f"{files.uri}/{key}")


def _check_reference(reference: str, where: str) -> None:
    repository, separator, _ = reference.partition(ANOTHER_REPOSITORY)
    if separator:
        raise ConfigError(
            f"model.trust_remote_code: {where} names code of {repository}, which the pinned "
            "revision does not cover: name a repository that has the code itself (a copy of this "
            f"one with {repository}'s modules in it, and no '{ANOTHER_REPOSITORY}' in auto_map), "
            "or remove model.trust_remote_code if transformers knows the model's type"
        )


def _check_implementation(reference: str, where: str) -> None:
    if "/" in reference:
        raise ConfigError(
            f"model.base: {where} names the kernel {reference} on the Hub, which is code that no "
            "revision of the base covers: remove it from that file"
        )


def _texts(content: Any) -> list[str]:
    return [value for value in values(content) if isinstance(value, str)]
