"""Configure a new adapter, and save it in a folder that names its base."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.config.training_sections import LoraSection
from job.errors import ConfigError
from job.model import Model, Tokenizer
from job.model.families import linear_modules
from job.model.fetch import Base


def lora_config(section: LoraSection, base: Base, model: Model) -> Any:
    """Return the adapter's peft config; `save_adapter` adds the base's name.

    Raise ConfigError for a target that is no linear module of the model: peft ignores one if
    another target matches.
    """
    from peft import LoraConfig, TaskType

    targets = section.target_modules
    if not isinstance(targets, str):
        _check_targets(targets, model)
        targets = list(targets)
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        use_rslora=section.variant == "rslora",
        use_dora=section.variant == "dora",
        target_modules=targets,
        revision=base.revision,
    )


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
    model.save_pretrained(
        str(folder),
        safe_serialization=True,
        # peft's default would save the embeddings too if their size changed: an adapter as large as
        # its base. And to find out, it would ask the Hub for the base's config.
        save_embedding_layers=False,
        state_dict=weights,
    )

    # peft writes the folder that the base was loaded from, which is a cache of this machine.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base.uri.removeprefix("hf://")
    config["revision"] = base.revision
    # peft writes a set, in an order that differs from process to process. The digest of an adapter
    # is that of its files, and the same training must end with the same digest.
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    # peft's model card is empty. recap's own is written when the scores are known.
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(str(folder))


def _check_targets(targets: list[str], model: Model) -> None:
    linear = linear_modules(model)
    for target in targets:
        if any(f".{name}".endswith(f".{target}") for name in linear):
            continue
        there = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ConfigError(
            f"lora.target_modules: the base has no linear module '{target}'; it has {there}; "
            "name some of those, or all-linear"
        )
