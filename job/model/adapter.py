"""Configure a new adapter, and save it in a folder that names its base."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.config.training_sections import LoraSection
from job.errors import ConfigError
from job.model import Model, Tokenizer
from job.model.adapter_files import ADAPTER_WEIGHTS, HEAD
from job.model.fetch import Base
from job.model.modules import experts, linear_modules


def lora_config(section: LoraSection, model: Model, revision: str | None = None) -> Any:
    """Return the adapter's peft config; `save_adapter` adds the base's name.

    `revision` is the base's on the Hub. Raise ConfigError for a target that cannot have an adapter.
    """
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        use_rslora=section.variant == "rslora",
        use_dora=section.variant == "dora",
        target_modules=target_modules(section, model),
        revision=revision,
    )


def target_modules(section: LoraSection, model: Model) -> list[str]:
    """Return the names of the modules that get an adapter, or ends of names that mean only those.

    Raise ConfigError if there are none, or for a target that peft would ignore, that would break,
    or that would never learn.
    """
    wanted = [] if section.target_modules == "all-linear" else list(section.target_modules)
    linear = list(linear_modules(model))
    refused = _refused_by_peft({_end(name) for name in [*linear, *wanted]}, model)
    adaptable = [name for name in linear if _end(name) not in refused]
    if not adaptable:
        raise ConfigError(
            "lora.target_modules: no linear module of the base can have an adapter; choose another "
            "base"
        )
    if not wanted:
        return adaptable

    for target in wanted:
        if not any(_means(target, name) for name in adaptable):
            there = ", ".join(sorted({_end(name) for name in adaptable}))
            raise ConfigError(
                f"lora.target_modules: {_why_not(target, model, refused)}; it has {there}; name "
                "some of those, or all-linear"
            )

    # peft takes each module whose name ends so, also those of a tower for images. Whole names mean
    # those of the language model alone.
    meant = [name for name, _ in model.named_modules() if any(_means(end, name) for end in wanted)]
    chosen = [name for name in meant if name in adaptable]
    return wanted if chosen == meant else chosen


def adapted_modules(section: LoraSection, model: Model) -> set[str]:
    """Return the whole names of the modules that get an adapter. Raise as `target_modules` does."""
    targets = target_modules(section, model)
    names = [name for name, _ in model.named_modules()]
    return {name for name in names if any(_means(target, name) for target in targets)}


def save_weights(model: Model, path: Path, weights: Mapping[str, Any] | None = None) -> None:
    """Write the adapter's weights alone, as the file that `save_adapter` would write of them.

    `weights` are the gathered ones of a model that is sharded between processes.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        _save_by_peft(model, Path(folder), weights)
        (Path(folder) / ADAPTER_WEIGHTS).replace(path)


def save_adapter(
    model: Model,
    tokenizer: Tokenizer,
    base: Base,
    folder: Path,
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Write the adapter's weights, its config with the base's id and revision, and the tokenizer.

    `weights` are the gathered ones of a model that is sharded between processes.
    """
    _save_by_peft(model, folder, weights)
    # peft writes the folder that the base was loaded from, which is a cache of this machine.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base.uri.removeprefix("hf://")
    config["revision"] = base.revision
    # peft writes a set, in an order that differs from process to process. The digest of an adapter
    # is that of its files, and the same training must end with the same digest.
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    if config["modules_to_save"]:  # peft adds every name that a head may have
        config["modules_to_save"] = [HEAD]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    # peft's model card is empty. recap's own is written when the scores are known.
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(str(folder))


def _save_by_peft(model: Model, folder: Path, weights: Mapping[str, Any] | None) -> None:
    model.save_pretrained(
        str(folder),
        safe_serialization=True,
        # peft's default would save the embeddings too if their size changed: an adapter as large as
        # its base. And to find out, it would ask the Hub for the base's config.
        save_embedding_layers=False,
        state_dict=weights,
    )


def _refused_by_peft(ends: Iterable[str], model: Model) -> dict[str, str]:
    """Return the ends of names for which peft refuses an adapter, or adapts something else.

    Asks peft, by two rules of its own. It refuses modules of state-space layers (Mamba, Falcon-H1,
    Nemotron-H), whose fast kernels read a weight past its adapter. And in mixtures of experts
    (Qwen-MoE, DeepSeek, GLM-4-MoE) it reads names such as `gate_proj` as those of the experts,
    which had linear modules before transformers 5: also where dense layers have modules of that
    name. Adapters on experts refuse dropout (peft 0.21).
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    refused = {}
    for end in ends:
        config = LoraConfig(target_modules=[end])
        try:
            _check_lora_target_modules_mamba(config, model, end)
        except ValueError:
            refused[end] = "peft refuses it in a state-space layer"
        try:
            convert_peft_config_for_transformers(config, model, None)
            means_experts = bool(config.target_parameters)
        except ValueError:
            means_experts = True
        if means_experts:
            refused[end] = "peft reads it as the name of the experts, which get no adapter"
    return refused


def _why_not(target: str, model: Model, refused: Mapping[str, str]) -> str:
    """Return why a target that the config names cannot have an adapter."""
    if _end(target) in refused:
        return f"'{target}' cannot have an adapter: {refused[_end(target)]}"
    if any(_means(target, name) for name in experts(model)):
        return f"'{target}' cannot have an adapter: the experts of the base are no linear modules"
    if any(_means(target, name) for name, _ in model.named_modules()):
        return f"'{target}' is no linear module of the base's language model, or its head or router"
    return f"the base has no linear module '{target}'"


def _means(target: str, name: str) -> bool:
    """Return True if peft takes a target for the module of this name."""
    return f".{name}".endswith(f".{target}")


def _end(name: str) -> str:
    return name.rpartition(".")[2]
