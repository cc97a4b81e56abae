"""An adapter with random weights, for tests that need one and not what it learned."""

from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, PromptSection
from job.model.adapter import save_adapter
from job.model.fetch import BASE_KEY, fetch_base
from job.model.load import load_base, load_tokenizer
from job.prompt.template import make_prompt, write_prompt
from job.storage.folders import publish_folder
from job.storage.open import open_store

NO_STORAGE: Any = None


def publish_adapter(
    base_uri: Path | str, work: Path, uri: str, seed: int = 5, rank: int = 2, **prompt: Any
) -> None:
    """Publish an adapter with random weights, as training does it; `prompt` are keys of its."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = fetch_base(str(base_uri), None, NO_STORAGE, work)
    tokenizer = load_tokenizer(base.path)
    torch.manual_seed(seed)
    targets = LoraConfig(
        r=rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    model = get_peft_model(load_base(base, AdapterModelSection(base=base.uri)), targets)
    save_adapter(model, tokenizer, base, work / "adapter")
    section = PromptSection(**prompt)
    write_prompt(work / "adapter", make_prompt(section, tokenizer, ["links", "whitespace"]))
    publish_folder(
        work / "adapter", open_store(uri), "", {BASE_KEY: base.identity(), "run": "tiny"}
    )
