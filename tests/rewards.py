"""A reward model with random weights, for tests that need one and not what it learned."""

from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, PromptSection
from job.config.training_sections import LoraSection
from job.model.adapter import save_adapter
from job.model.fetch import BASE_KEY, fetch_base
from job.model.kinds import METHOD_KEY, REWARD, ROW_TOKENS_KEY
from job.model.load import load_base, load_tokenizer
from job.model.reward import add_head, reward_config
from job.prompt.template import make_prompt, write_prompt
from job.storage.folders import publish_folder
from job.storage.open import open_store
from tests.adapters import publish_adapter

NO_STORAGE: Any = None


def publish_both(base_uri: Path | str, work: Path) -> dict[str, str]:
    """Publish a reward model and an adapter that summarizes; return their locations by name."""
    found = {name: str(work / f"published-{name}") for name in ("reward", "adapter")}
    publish_reward_model(base_uri, work, found["reward"])
    publish_adapter(base_uri, work, found["adapter"])
    return found


def publish_reward_model(
    base_uri: Path | str, work: Path, uri: str, seed: int = 5, **prompt: Any
) -> None:
    """Publish a reward model with random weights, as training does it; `prompt` are keys of its."""
    import torch
    from peft import get_peft_model

    base = fetch_base(str(base_uri), None, NO_STORAGE, work)
    tokenizer = load_tokenizer(base.path)
    model = load_base(base, AdapterModelSection(base=base.uri))
    add_head(model)
    torch.manual_seed(seed)
    tuned = get_peft_model(model, reward_config(LoraSection(r=2), model))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    save_adapter(tuned, tokenizer, base, work / "reward")
    section = PromptSection(**prompt)
    write_prompt(work / "reward", make_prompt(section, tokenizer, ["whitespace"]))
    about = {METHOD_KEY: REWARD, ROW_TOKENS_KEY: 400}
    publish_folder(
        work / "reward", open_store(uri), "", {BASE_KEY: base.identity(), "run": "tiny"} | about
    )
