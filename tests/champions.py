"""Adapters by their manifests alone, and pointers to them, for tests that load no weights."""

import json
from pathlib import Path
from typing import Any

from job.config.sections import StorageSection
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.model.champion import Pointer, Promotion, find_pointer, now, switch
from job.model.fetch import BASE_KEY, read_adapter
from job.model.files import ADAPTER_CONFIG
from job.model.kinds import METHOD_KEY, REWARD
from job.model.reward import read_reward_model
from job.storage.folders import publish_folder
from job.storage.open import open_store

STORAGE = StorageSection()


def put_adapter(uri: str, work: Path, content: str | None = None) -> str:
    """Publish an adapter without weights; its content is by default its URI. Return its digest."""
    folder = work / f"adapter-of-{uri.rpartition('/')[2]}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(content or uri)
    publish_folder(folder, open_store(uri), "", {BASE_KEY: {"uri": "base", "digest": "b" * 64}})
    return read_adapter(uri, STORAGE).digest


def put_reward_model(uri: str, work: Path) -> str:
    """Publish a reward model without weights, whose content is its URI. Return its digest."""
    folder = work / f"reward-model-of-{uri.rpartition('/')[2]}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(uri)
    about = {BASE_KEY: {"uri": "small", "digest": "c" * 64}, METHOD_KEY: REWARD, "run": "judge"}
    publish_folder(folder, open_store(uri), "", about)
    return read_reward_model(uri, STORAGE, "generation.reward_model.adapter").digest


def put_lora(uri: str, work: Path, rank: int = 2) -> None:
    """Publish the least that is a LoRA: its config, and one matrix."""
    import numpy as np
    from safetensors.numpy import save_file

    work.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (work / ADAPTER_CONFIG).write_text(json.dumps(config))
    weights = {"base_model.q_proj.lora_A.weight": np.zeros((rank, 4), np.float32)}
    save_file(weights, work / ADAPTER_WEIGHTS)
    publish_folder(work, open_store(uri), "", {BASE_KEY: {"uri": "base", "digest": "b" * 64}})


def promote(
    pointer: str, adapter: str, storage: StorageSection = STORAGE, **evaluation: Any
) -> Pointer:
    """Make the adapter the champion, whoever was it before, with this in its evaluation."""
    digest = read_adapter(adapter, storage).digest
    promotion = Promotion(adapter, digest, now(), "a test", evaluation=evaluation)
    return switch(pointer, storage, promotion, find_pointer(pointer, storage))
