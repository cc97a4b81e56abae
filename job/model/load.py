"""The model: base (4-bit where asked), adapter, tokenizer.

Purpose: a name from a config → weights in memory, and an adapter → a folder that says which base it belongs to.
Weights are read from safetensors only. Knows nothing of data or prompts' content, and nothing of how it is trained.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, ModelSection, StorageSection
from job.config.training_sections import LoraSection
from job.errors import ConfigError, DamagedError, DataError, RecapError
from job.model.files import (
    HUB_ID,
    check_tokenizer,
    digest_of,
    files_in_folder,
    hub_id_of,
    read_json,
    weights_digest,
)
from job.storage.folders import Manifest, fetch_folder, fetch_prefix, is_folder_of, read_manifest
from job.storage.hub_errors import hub_errors
from job.storage.open import open_store
from job.storage.store import Store
from job.telemetry import progress

Model = Any  # a transformers PreTrainedModel or a peft PeftModel
Tokenizer = Any  # a transformers PreTrainedTokenizerBase
BASE_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py")
BASE_KEY = "base"  # of an adapter manifest's extra


@dataclass(frozen=True)
class Base:
    """A base model on disk: how the config named it, the Hub commit, the digest of its weights, and where it lies."""

    uri: str
    revision: str | None
    digest: str
    path: Path

    def identity(self) -> dict[str, str | None]:
        """What an adapter records of its base; the path of a cache is no part of it."""
        return {"uri": self.uri, "revision": self.revision, "digest": self.digest}


def fetch_base(uri: str, revision: str | None, storage: StorageSection, cache: Path) -> Base:
    """Bring a base to disk: a folder stays where it is, s3:// and the Hub go through a cache.

    Raises MissingError, DataError, ForbiddenError or RetryError; ConfigError for a revision of anything but a Hub id.
    """
    hub_id = hub_id_of(uri, revision)
    if uri.startswith("s3://"):
        target = cache / hashlib.sha256(uri.encode()).hexdigest()[:16]
        with progress(f"fetching {uri}", None, "B") as bar:
            fetch_prefix(open_store(uri, storage), "", target, BASE_PATTERNS, bar.advance)
        return Base(uri, None, weights_digest(target, uri), target)
    if hub_id is None:
        return Base(uri, None, weights_digest(Path(uri), uri), Path(uri))
    path = _snapshot(hub_id, revision)
    return Base(uri, path.name, weights_digest(path, uri), path)


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer of a base or an adapter, with a pad token (its end token where it has none).

    Raises MissingError without its files, DataError where they are broken, ConfigError where something is not allowed
    or not installed.
    """
    from transformers import AutoTokenizer

    check_tokenizer(files_in_folder(path, str(path)))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except RecapError:
        raise
    except Exception as error:  # tokenizers has no narrower class for a broken tokenizer.json
        if isinstance(error, ImportError) or "trust_remote_code" in str(error):
            raise ConfigError(
                f"model: the tokenizer in {path} cannot be loaded as configured: {error}"
            ) from error
        files = ", ".join(sorted(file.name for file in path.glob("tokenizer*")))
        raise DataError(
            f"{path}: its tokenizer cannot be loaded ({type(error).__name__}: {error}); "
            f"copy or fetch its files again ({files})"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_tokens(path: Path) -> int | None:
    """The positions that a base was made for; None where its config names no limit."""
    limit = read_json(files_in_folder(path, str(path)), "config.json").get(
        "max_position_embeddings"
    )
    return int(limit) if isinstance(limit, int | float) and limit else None


def load_base(
    base: Base, section: ModelSection | AdapterModelSection, sharded: bool = False
) -> Model:
    """The base in memory, on this process's device, 4-bit where the section says so.

    To be `sharded` between processes, it is one that need not fit on the device: it waits in the host's memory.
    Raises ConfigError where it cannot be loaded as configured, DataError where its weights are damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(base.path),
            dtype=compute_dtype(section.dtype),
            quantization_config=_quantization(section, sharded),
            device_map={"": "cpu" if sharded else device()},
            attn_implementation=section.attention,
            use_safetensors=True,
            trust_remote_code=section.trust_remote_code,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise DataError(
            f"model.base: the weights of {base.uri} are damaged ({error}); fetch them again"
        ) from error
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(f"model: '{base.uri}' cannot be loaded as configured: {error}") from error
    _check_whole(loaded, base)
    _keep_packing(model)
    return model


def lora_config(section: LoraSection, base: Base, model: Model) -> Any:
    """The adapter's peft config; the base's name is written when it is saved (`save_adapter`).

    ConfigError for a target that is no linear module of the model: peft ignores it where another one is.
    """
    from peft import LoraConfig, TaskType

    targets = section.target_modules
    if not isinstance(targets, str):
        _check_targets(targets, model)
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        use_rslora=section.variant == "rslora",
        use_dora=section.variant == "dora",
        target_modules=targets if isinstance(targets, str) else list(targets),
        revision=base.revision,
    )


def save_adapter(
    model: Model,
    tokenizer: Tokenizer,
    base: Base,
    folder: Path,
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Write the adapter's weights, its config naming the base by id and revision, and the tokenizer.

    `weights` are those of a model that is sharded between processes, gathered.
    """
    # None as embedding layers: an adapter must not grow to the base's size, nor ask the Hub for the base's config.
    model.save_pretrained(
        str(folder), safe_serialization=True, save_embedding_layers=False, state_dict=weights
    )
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"], config["revision"] = (
        base.uri.removeprefix("hf://"),
        base.revision,
    )
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(
        missing_ok=True
    )  # peft's empty model card; ours is written with the scores
    tokenizer.save_pretrained(str(folder))


def attach_adapter(model: Model, folder: Path) -> Model:
    """The base with the adapter in `folder` on it, ready for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), torch_device=str(device())).eval()


def read_adapter(uri: str, storage: StorageSection) -> tuple[Store, Manifest, str]:
    """Where an adapter lies (a folder, an s3:// prefix, a repository of the Hub), its manifest, which names its base
    under BASE_KEY, and its digest; fetches no weights.
    """
    store = open_store(
        f"hf://{uri}" if HUB_ID.fullmatch(uri) and not Path(uri).is_dir() else uri, storage
    )
    manifest = read_manifest(store, "")
    recorded = manifest.extra.get(BASE_KEY)
    if not isinstance(recorded, dict) or "uri" not in recorded:
        raise DamagedError(
            f"{uri}: its manifest names no base: this is no adapter folder that recap published"
        )
    return (
        store,
        manifest,
        digest_of({name: entry.sha256 for name, entry in manifest.files.items()}),
    )


def check_adapter_digest(uri: str, digest: str, wanted: str | None) -> None:
    """Raise DataError unless the digest begins with `wanted`; None is any."""
    if wanted is not None and not digest.startswith(wanted):
        raise DataError(
            f"adapter: {uri} has digest {digest}, and adapter_digest wants {wanted}: the adapter was "
            "replaced, or the digest is another one's; correct whichever is wrong"
        )


def fetch_adapter(
    uri: str, storage: StorageSection, cache: Path
) -> tuple[Path, dict[str, Any], str]:
    """Bring an adapter to disk and return its folder, the base that it records, and its digest.

    What the cache holds is verified each time by the manifest in the store, and fetched again where it
    differs.
    """
    store, manifest, digest = read_adapter(uri, storage)
    folder = cache / f"adapter-{digest[:16]}"
    if not is_folder_of(folder, manifest):
        with progress(
            f"fetching {uri}", sum(entry.size for entry in manifest.files.values()), "B"
        ) as bar:
            fetch_folder(store, "", folder, bar.advance)
    return folder, manifest.extra[BASE_KEY], digest


def compute_dtype(name: str) -> Any:
    """The torch dtype of computation: auto is bfloat16 where a GPU has it, float16 on older ones, float32 on CPU."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    if not torch.cuda.is_available():
        return torch.float32
    return (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )


def device() -> Any:
    """The device of one process: the GPU of its local rank, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def base_of_adapter(
    uri: str,
    recorded: Mapping[str, Any],
    section: AdapterModelSection,
    storage: StorageSection,
    cache: Path,
) -> Base:
    """The base that an adapter was trained on, as recorded or from `section.base`; ConfigError if another."""
    name, revision = base_named(uri, recorded, section)
    base = fetch_base(name, revision, storage, cache)
    check_same_base(uri, recorded, section, base.digest)
    return base


def base_named(
    uri: str, recorded: Mapping[str, Any], section: AdapterModelSection
) -> tuple[str, str | None]:
    """Name and revision of the base to load for an adapter; ConfigError for a revision other than the recorded one."""
    if section.base is not None:
        return section.base, section.revision
    if section.revision and section.revision != recorded.get("revision"):
        raise ConfigError(
            f"model.revision: {uri} is an adapter for {recorded['uri']} at revision {recorded.get('revision')}, got "
            f"{section.revision}; give that one, or none"
        )
    return recorded["uri"], recorded.get("revision")


def check_same_base(
    uri: str, recorded: Mapping[str, Any], section: AdapterModelSection, digest: str
) -> None:
    """ConfigError if the digest is not that of the base which the adapter records."""
    if recorded.get("digest") != digest:
        found = (
            f"model.base, {section.base},"
            if section.base
            else f"what stands there now, {recorded['uri']},"
        )
        raise ConfigError(
            f"{uri} is an adapter for {recorded['uri']} (digest {str(recorded.get('digest'))[:12]}), but {found} has "
            f"digest {digest[:12]}: give the base that it was trained on, or train again"
        )


def _check_whole(loaded: Mapping[str, Any], base: Base) -> None:
    """DataError for tensors that are not there or of another shape: transformers fills them with random numbers."""
    unfit = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    if unfit:
        raise DataError(
            f"model.base: the weights of {base.uri} do not fit its config.json: {len(unfit)} tensors are not there, or "
            f"of another shape ({', '.join(unfit[:3])}); copy or fetch the base again"
        )


def _check_targets(targets: list[str], model: Model) -> None:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    linear = [name for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)]
    unknown = [
        target
        for target in targets
        if not any(f".{name}".endswith(f".{target}") for name in linear)
    ]
    if unknown:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ConfigError(
            f"lora.target_modules: the base has no linear module '{unknown[0]}'; it has {there}; "
            "name some of those, or all-linear"
        )


def _snapshot(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(f"model.base: '{hub_id}'" + (f" at revision '{revision}'" if revision else "")):
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(BASE_PATTERNS))
        )


def _quantization(section: ModelSection | AdapterModelSection, sharded: bool) -> Any:
    if section.quantization is None:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    dtype = compute_dtype(section.dtype)
    # FSDP shards only what looks like numbers, and casts what is not of the type of computation, packed bytes too.
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=section.quantization == "nf4-double",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if sharded else torch.uint8,
    )


def _keep_packing(model: Model) -> None:
    """Forbid bitsandbytes to repack 4-bit weights in place.

    On CPUs with AVX512-BF16 it does so at the first evaluation and undoes it at the next save. In between training goes
    through other kernels, so an adapter would depend on when it was evaluated and saved (measured with 0.50.2).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
