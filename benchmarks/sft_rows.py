"""Make rows of the demo's conversations as users of TRL write them: a prompt and a completion."""

import json
from pathlib import Path

SYSTEM = (
    "Below is a conversation between a human and an AI agent. Write a summary of the conversation."
)


def prompts_and_completions(path: Path) -> list[dict[str, str]]:
    """Return both texts, one row per reference."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        turns = "\n".join(f"{turn['role']}: {turn['text']}" for turn in record["turns"])
        prompt = f"### Instruction: {SYSTEM}\n\n### Input:\n{turns}\n\n### Response:\n"
        found += [{"prompt": prompt, "completion": summary} for summary in record["summaries"]]
    return found
