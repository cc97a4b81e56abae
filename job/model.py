"""The model: base (4-bit where asked), adapter, tokenizer.

Purpose: a name from a config → weights in memory, and an adapter → a folder that says which base it belongs to.
Weights are read from safetensors only. Knows nothing of data or prompts' content, and nothing of how it is trained.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, LoraSection, ModelSection, StorageSection
from job.errors import ConfigError, DamagedError, MissingError
from job.storage.folders import Manifest, fetch_folder, fetch_prefix, read_manifest, sha256_file
from job.storage.hub_errors import hub_errors
from job.storage.open import open_store
from job.storage.store import Store
from job.telemetry import progress

Model = Any  # a transformers PreTrainedModel or a peft PeftModel
Tokenizer = Any  # a transformers PreTrainedTokenizerBase
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
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

    Raises MissingError, ForbiddenError or RetryError.
    """
    if uri.startswith("s3://"):
        target = cache / hashlib.sha256(uri.encode()).hexdigest()[:16]
        with progress(f"fetching {uri}", None, "B") as bar:
            fetch_prefix(open_store(uri, storage), "", target, BASE_PATTERNS, bar.advance)
        return Base(uri, None, _weights_digest(target, uri), target)
    if Path(uri).is_dir():
        return Base(uri, None, _weights_digest(Path(uri), uri), Path(uri))
    hub_id = uri.removeprefix("hf://")
    if not HUB_ID.fullmatch(hub_id):
        raise MissingError(
            f"model.base: '{uri}' is no folder here, and neither a Hub id (org/name) nor an s3:// prefix"
        )
    path = _snapshot(hub_id, revision)
    return Base(uri, path.name, _weights_digest(path, uri), path)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a base or an adapter, with a pad token (its end token where it has none)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(path))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_tokens(path: Path) -> int | None:
    """The positions that a base was made for; None where its config names no limit."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    limit = config.get("max_position_embeddings")
    return int(limit) if limit else None


def load_base(base: Base, section: ModelSection | AdapterModelSection) -> Model:
    """The base in memory, on this process's device, 4-bit where the section says so."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(base.path),
            dtype=compute_dtype(section.dtype),
            quantization_config=_quantization(section),
            device_map={"": device()},
            attn_implementation=section.attention,
            use_safetensors=True,
            trust_remote_code=getattr(section, "trust_remote_code", False),
        )
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(f"model: '{base.uri}' cannot be loaded as configured: {error}") from error
    _keep_packing(model)
    return model


def lora_config(section: LoraSection, base: Base) -> Any:
    """The adapter's peft config; the base's name is written when it is saved (`save_adapter`)."""
    from peft import LoraConfig, TaskType

    targets = section.target_modules
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        revision=base.revision,
    )


def save_adapter(model: Model, tokenizer: Tokenizer, base: Base, folder: Path) -> None:
    """Write the adapter's weights, its config naming the base by id and revision, and the tokenizer."""
    # None as embedding layers: an adapter must not grow to the base's size, nor ask the Hub for the base's config.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"], config["revision"] = base.uri.removeprefix("hf://"), base.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card; ours is written with the scores
    tokenizer.save_pretrained(str(folder))


def attach_adapter(model: Model, folder: Path) -> Model:
    """The base with the adapter in `folder` on it, ready for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), torch_device=str(device())).eval()


def read_adapter(uri: str, storage: StorageSection) -> tuple[Store, Manifest, str]:
    """Where an adapter lies, its manifest (with its base under BASE_KEY) and its digest; fetches no weights."""
    if HUB_ID.fullmatch(uri) and not Path(uri).is_dir():
        uri = f"hf://{uri}"
    store = open_store(uri, storage)
    manifest = read_manifest(store, "")
    recorded = manifest.extra.get(BASE_KEY)
    if not isinstance(recorded, dict) or "uri" not in recorded:
        raise DamagedError(f"{uri}: its manifest names no base: this is no adapter folder that recap published")
    return store, manifest, _digest({name: entry.sha256 for name, entry in manifest.files.items()})


def fetch_adapter(uri: str, storage: StorageSection, cache: Path) -> tuple[Path, dict[str, Any], str]:
    """Bring an adapter to disk, verified by its manifest: its folder, the base it records, and its digest."""
    store, manifest, digest = read_adapter(uri, storage)
    folder = cache / f"adapter-{digest[:16]}"
    if not folder.is_dir():
        fetch_folder(store, "", folder)
    return folder, manifest.extra[BASE_KEY], digest


def compute_dtype(name: str) -> Any:
    """The torch dtype of computation: auto is bfloat16 where a GPU has it, float16 on older ones, float32 on CPU."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def device() -> Any:
    """The device of one process: the GPU of its local rank, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def base_of_adapter(
    uri: str, recorded: Mapping[str, Any], section: AdapterModelSection, storage: StorageSection, cache: Path
) -> Base:
    """The base that an adapter was trained on, as recorded or from `section.base`; ConfigError if another."""
    named = section.base is not None
    base = fetch_base(
        section.base or recorded["uri"], section.revision if named else recorded.get("revision"), storage, cache
    )
    if recorded.get("digest") != base.digest:
        raise ConfigError(
            f"{uri} is an adapter for {recorded['uri']} (digest {str(recorded.get('digest'))[:12]}), but "
            f"{'model.base' if named else 'what stands there now'}, {base.uri}, has digest {base.digest[:12]}: "
            "give the base that it was trained on, or train again"
        )
    return base


def _snapshot(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(f"model.base: '{hub_id}'" + (f" at revision '{revision}'" if revision else "")):
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(BASE_PATTERNS)))


def _quantization(section: ModelSection | AdapterModelSection) -> Any:
    if section.quantization is None:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=section.quantization == "nf4-double",
        bnb_4bit_compute_dtype=compute_dtype(section.dtype),
    )


def _keep_packing(model: Model) -> None:
    """Forbid bitsandbytes to repack 4-bit weights in place.

    On CPUs with AVX512-BF16 it does so at the first evaluation and undoes it at the next save. In between training goes
    through other kernels, so an adapter would depend on when it was evaluated and saved (measured with 0.50.2).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _weights_digest(path: Path, uri: str) -> str:
    """Digest over names and contents of config and weights."""
    weights = sorted(path.glob("*.safetensors"))
    config = path / "config.json"
    if not config.is_file() or not weights:
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise MissingError(
            f"model.base: {uri} needs config.json and *.safetensors, found {found}; "
            "convert other weights with save_pretrained(..., safe_serialization=True)"
        )
    return _digest({file.name: sha256_file(file) for file in [config, *weights]})


def _digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()
