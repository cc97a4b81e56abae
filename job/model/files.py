"""Check that the folder of a base is whole, by the names, sizes and first bytes of its files.

Reads little, and needs no torch: a plan checks a base in S3 before its weights are fetched.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

from job.errors import ConfigError, DataError, MissingError
from job.identity import json_digest
from job.model.headers import AGAIN, header_shapes
from job.model.quantization import check_tensor_names
from job.storage.atomic import reading
from job.storage.digests import hub_digests, sha256_files
from job.storage.keys import check_key
from job.storage.store import Store

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ALL_WEIGHTS = "*.safetensors"

# Names of files that transformers' tokenizers read, and of vocabularies among them.
VOCABULARIES = (
    "tokenizer.json",
    "tekken.json",
    "vocab.*",
    "*.model",
    "tokenizer.model.*",
    "*.tiktoken",
    "prophetnet.tokenizer",
)
TOKENIZER_FILES = (
    *VOCABULARIES,
    TOKENIZER_CONFIG,
    "tokenizer.*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "*vocab*.json",
    "merges.txt",
    "dict.txt",
    "bpe.codes",
    "emoji.json",
    "normalizer.json",
    "byte_maps.json",
)
TEMPLATE_FOLDER = "additional_chat_templates/"
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
# All files that are loaded but weights and code. vLLM reads the processors' of a base that also
# sees or hears.
SMALL_FILES = (
    CONFIG,
    GENERATION_CONFIG,
    "*processor_config.json",
    *TOKENIZER_FILES,
    *CHAT_TEMPLATES,
)

MAX_JSON_BYTES = 100_000_000
MAX_JSON_DEPTH = 64  # real ones have 5
# Keys of a config whose numbers are the rows and columns of a matrix, or how many there are.
HIDDEN = ("hidden_size", "n_embd", "d_model")
WIDTHS = (
    *HIDDEN,
    "vocab_size",
    "intermediate_size",
    "ffn_dim",
    "n_inner",
    "n_positions",
    "state_size",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
)
COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_labels")
MAX_LAYERS = 100_000  # real ones have 200


@dataclass(frozen=True)
class BaseFiles:
    """The files of a base: its name in the config, size in bytes by key, and how to open one."""

    uri: str
    sizes: Mapping[str, int]
    open: Callable[[str], BinaryIO]

    def matching(self, patterns: tuple[str, ...]) -> list[str]:
        """Return the files of the folder itself whose names match; those below are not loaded."""
        keys = [key for key in self.sizes if "/" not in key]
        return sorted(key for key in keys if any(fnmatchcase(key, name) for name in patterns))


def hub_id_of(uri: str, revision: str | None) -> str | None:
    """Return the Hub id that names a base; None for an s3:// prefix or a folder here.

    Raise MissingError if `uri` is none of the three, ConfigError for a revision that would be
    ignored.
    """
    kind = None
    if uri.startswith("s3://"):
        kind = "an s3:// prefix"
    elif Path(uri).is_dir():
        kind = "a folder here"

    if kind and revision:
        raise ConfigError(
            f"model.revision: {uri} is {kind}, and only a Hub id has revisions; remove it "
            "(code from a model's repository runs from a pinned commit of the Hub only)"
        )
    if kind:
        return None

    hub_id = uri.removeprefix("hf://")
    if not HUB_ID.fullmatch(hub_id):
        raise MissingError(
            f"model.base: '{uri}' is no folder here, and neither a Hub id (org/name) nor an s3:// "
            "prefix"
        )
    return hub_id


def files_in_folder(path: Path, uri: str) -> BaseFiles:
    """Return the files of a folder here."""
    sizes = {}
    with reading(path):
        for file in sorted([*path.iterdir(), *path.glob(f"{TEMPLATE_FOLDER}*")]):
            # Follows links: a snapshot in the Hub's cache consists of them.
            if file.is_file():
                sizes[file.relative_to(path).as_posix()] = file.stat().st_size
    return BaseFiles(uri, sizes, lambda key: _open(path / key))


def files_in_store(store: Store, uri: str) -> BaseFiles:
    """Return the files below a store's root."""
    return BaseFiles(uri, {entry.key: entry.size for entry in store.list()}, store.open)


def weight_names(files: BaseFiles) -> list[str]:
    """Return the names of the weight files that are loaded: the index's, or the single one.

    The same folder may have others, which transformers does not read: `consolidated.safetensors`
    of Mistral's has all weights a second time. Raise MissingError without any, DataError for a
    broken index.
    """
    shards = _shards(files) if INDEX in files.sizes else []
    if shards and (WEIGHTS not in files.sizes or WEIGHTS in shards):
        return shards
    if WEIGHTS in files.sizes:
        return [WEIGHTS]
    check_is_no_adapter(files)
    of_llama_cpp = files.matching(("*.gguf",))
    if of_llama_cpp:
        raise MissingError(
            f"model.base: {files.uri} has weights for llama.cpp ({of_llama_cpp[0]}), which cannot "
            f"be trained: use the base that they were made from, with {CONFIG} and {WEIGHTS}"
        )
    found = ", ".join(list(files.sizes)[:8]) or "nothing"
    raise MissingError(
        f"model.base: {files.uri} needs config.json and {WEIGHTS} or {INDEX} with its files, "
        f"found {found}; convert other weights with "
        "save_pretrained(..., safe_serialization=True)"
    )


def tokenizer_names(files: BaseFiles) -> list[str]:
    """Return the names of the files of the tokenizer, and of its chat templates."""
    return files.matching((*TOKENIZER_FILES, *CHAT_TEMPLATES)) + _more_templates(files)


def small_names(files: BaseFiles) -> list[str]:
    """Return the names of all files that are loaded but weights and code."""
    return files.matching(SMALL_FILES) + _more_templates(files)


def check_names(files: BaseFiles) -> list[str]:
    """Return the names of the weights; raise MissingError without config or weights."""
    names = weight_names(files)
    if CONFIG not in files.sizes:
        found = ", ".join(list(files.sizes)[:8])
        raise MissingError(f"model.base: {files.uri} has no {CONFIG}, found {found}; {AGAIN}")
    missing = sorted(set(names) - set(files.sizes))
    if missing:
        raise MissingError(
            f"model.base: {files.uri} lacks {', '.join(missing[:5])}, which {INDEX} names; {AGAIN}"
        )
    return names


def check_index(files: BaseFiles) -> list[str]:
    """Return the names of the weights; raise what `check_weights` raises, but read no weights.

    The index, if there is one, has the names of tensors.
    """
    names = check_names(files)
    if names != [WEIGHTS]:
        tensors = read_json(files, INDEX)["weight_map"]
        check_tensor_names(tensors, read_json(files, CONFIG), files.uri)
    return names


def check_config(files: BaseFiles) -> None:
    """Raise DataError for a broken config.json, ConfigError for weights of another name."""
    config = read_json(files, CONFIG)
    if config.get("transformers_weights") is not None:
        raise ConfigError(
            f"model.base: {files.uri}/{CONFIG} has transformers_weights, which recap does not "
            f"read: remove it, and name the weights {WEIGHTS}"
        )
    for key, value in entries(config):
        # To make such a model would take forever, or all memory for the names of labels.
        if key in COUNTS and _count(value) > MAX_LAYERS:
            raise DataError(f"model.base: {files.uri}/{CONFIG} has {key}: {value}; {AGAIN}")


def check_is_no_adapter(files: BaseFiles) -> None:
    """Raise ConfigError for the folder of an adapter, or of a base with an adapter in it.

    From such a folder, transformers loads the adapter, and the base that the adapter's config
    names.
    """
    if ADAPTER_CONFIG in files.sizes:
        raise ConfigError(
            f"model.base: {files.uri} has an {ADAPTER_CONFIG}, so transformers would load an "
            "adapter, and the base that it names: give a folder without it, or name the adapter "
            "by the key adapter"
        )


def check_weights(files: BaseFiles) -> list[str]:
    """Return the names of the weights.

    Raise MissingError for a missing file, DataError for a broken config or broken weights,
    ConfigError for the folder of an adapter, or a config that calls plain weights quantized. Finds
    weights that are cut short without reading them: a header has the file's length.
    """
    check_is_no_adapter(files)
    names = check_names(files)
    check_config(files)
    tensors: list[str] = []
    for key in names:
        with files.open(key) as file:
            tensors += header_shapes(file, files.sizes[key], f"model.base: {files.uri}/{key}")
    check_tensor_names(tensors, read_json(files, CONFIG), files.uri)
    _check_widths(files, sum(files.sizes[key] for key in names))
    return names


def weights_digest(
    path: Path,
    uri: str,
    every_weight: bool = False,
    cache: Path | None = None,
    is_in_hub_cache: bool = False,
) -> str:
    """Check a base's folder, and return the digest over its config and weights.

    Reads every weight, but those of which `cache` or the Hub's cache knows the digest; with
    `every_weight`, files that are not loaded, too. Raise what `check_weights` raises.
    """
    files = files_in_folder(path, uri)
    names = check_weights(files)
    if every_weight:
        names = files.matching((ALL_WEIGHTS,))
    digests: dict[str, str] = {}
    if is_in_hub_cache:
        digests = hub_digests(path, names)
    others = [name for name in [CONFIG, *names] if name not in digests]
    paths = [path / name for name in others]
    digests.update(zip(others, sha256_files(paths, cache), strict=True))
    return json_digest(digests)


def read_json(files: BaseFiles, key: str) -> dict[str, Any]:
    """Return the JSON object in a small file; raise DataError if it holds anything else."""
    with files.open(key) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise DataError(
            f"model.base: {files.uri}/{key} is larger than {MAX_JSON_BYTES:,} bytes; {AGAIN}"
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"model.base: {files.uri}/{key} is no JSON ({error}); {AGAIN}") from error
    if not isinstance(value, dict):
        raise DataError(f"model.base: {files.uri}/{key} is no JSON object; {AGAIN}")
    if _depth(value) > MAX_JSON_DEPTH:
        raise DataError(
            f"model.base: {files.uri}/{key} is nested more than {MAX_JSON_DEPTH} deep; {AGAIN}"
        )
    return value


def entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield key and value of every object in a JSON value, however deep."""
    for value in values(content):
        if isinstance(value, dict):
            yield from value.items()


def values(content: Any) -> Iterator[Any]:
    """Yield a JSON value and every one in it, however deep; not the keys of objects."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _depth(value: Any) -> int:
    """Return how deep a JSON value is nested. Libraries that copy one do so by recursion."""
    depth = 0
    level = [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level = inner
    return depth


def _check_widths(files: BaseFiles, weight_bytes: int) -> None:
    """Raise DataError for a config whose matrices are far larger than the weights.

    transformers allocates what the config says before anybody compares: a wrong number there would
    take all memory of the machine. No quantization has less than a bit for a parameter.
    """
    waiting = [read_json(files, CONFIG)]
    while waiting:
        config = waiting.pop()
        waiting += [value for value in config.values() if isinstance(value, dict)]
        rows = [_count(config.get(key)) for key in HIDDEN]
        for key in WIDTHS:
            if max(rows) * _count(config.get(key)) > 8 * weight_bytes:
                raise DataError(
                    f"model.base: {files.uri}/{CONFIG} has {key}: {config[key]}, far more than its "
                    f"weights of {weight_bytes:,} bytes have; {AGAIN}"
                )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _more_templates(files: BaseFiles) -> list[str]:
    more = [key for key in files.sizes if key.startswith(TEMPLATE_FOLDER)]
    return sorted(key for key in more if key.endswith(".jinja"))


def _shards(files: BaseFiles) -> list[str]:
    """Return the names of the weight files in the index."""
    try:
        names = {check_key(name, INDEX) for name in read_json(files, INDEX)["weight_map"].values()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"model.base: {files.uri}/{INDEX} has no weight_map of file names; {AGAIN}"
        ) from error
    return sorted(names)


def _open(path: Path) -> BinaryIO:
    with reading(path):
        return path.open("rb")
