"""recap's engine against a loop that summarizes one conversation at a time: same model, same prompts, by turns.

`python benchmarks/summarize_speed.py [--adapter DIR] [--conversations FILE] [--limit N] [--repeats N]` prints a line
per measurement and the ratio of the fastest (conversations per second, recap / loop; above 1 is faster): what else a
machine does can only slow either down. Without an adapter, `recap train` makes one first, in so few steps that it
writes summaries, if not good ones. Prompts are made and answers decoded within the measured time, on either side; the
model is loaded before. Wants recap installed, or the repository's root on PYTHONPATH.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from job.config.sections import AdapterModelSection, GenerationSection, ReadingSection, StorageSection
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.inference.open import LoadedModel, open_adapter
from job.inference.summaries import input_budget, summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.prompt import encode_prompt
from job.storage.open import list_inputs
from job.storage.places import cache_folder

STEPS = 80
DATA = Path(__file__).parent.parent / "examples" / "demo"
Summarize = Callable[[], list[str]]


def with_recap(loaded: LoadedModel, conversations: list[Conversation], settings: GenerationSection) -> list[str]:
    """Summaries by recap's engine."""
    engine = TransformersEngine(loaded.model, loaded.tokenizer)
    return summarize_conversations(conversations, engine, (loaded.prompt, loaded.tokenizer), settings)


def one_at_a_time(loaded: LoadedModel, conversations: list[Conversation], settings: GenerationSection) -> list[str]:
    """Summaries as a notebook makes them: tokenizer, generate, decode, the next."""
    import torch

    budget = input_budget(TransformersEngine(loaded.model, loaded.tokenizer), settings)
    summaries = []
    for conversation in conversations:
        ids = torch.tensor([encode_prompt(conversation, loaded.prompt, loaded.tokenizer, budget).ids])  # (1, tokens)
        ids = ids.to(loaded.model.device)
        output = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            pad_token_id=loaded.tokenizer.pad_token_id,
        )
        text: str = loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        summaries.append(text.strip())
    return summaries


def train_adapter(work: Path) -> str:
    """An adapter that makes the demo's base summarize."""
    config = {
        "run": "bench",
        "model": {"base": str(DATA / "base")},
        "data": {"train": str(DATA / "train.jsonl"), "validation": str(DATA / "validation.jsonl")},
        "output": str(work),
        "training": {"max_steps": STEPS, "batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 3e-3},
        "lora": {"r": 64, "alpha": 64},
        "evaluation": {"max_conversations": 1},
    }
    (work / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "job", "train", str(work / "train.yaml")], check=True, capture_output=True)
    return str(work / "bench" / "adapter")


def main() -> None:
    """Measure both by turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", help="a folder; else one is trained first")
    parser.add_argument("--conversations", default=str(DATA / "heldout.jsonl"))
    parser.add_argument("--limit", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    options = parser.parse_args()
    conversations = read_strictly(list_inputs([options.conversations]), ReadingSection())[: options.limit]
    settings = GenerationSection(max_new_tokens=options.max_new_tokens)
    with TemporaryDirectory() as work:
        adapter = options.adapter or train_adapter(Path(work))
        loaded = open_adapter(adapter, AdapterModelSection(), StorageSection(), cache_folder())
    ways: dict[str, Summarize] = {
        "recap": lambda: with_recap(loaded, conversations, settings),
        "loop": lambda: one_at_a_time(loaded, conversations, settings),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    summaries: dict[str, list[str]] = {}
    one_at_a_time(loaded, conversations[:2], settings)  # first calls of a process are slower
    for repeat in range(options.repeats):
        for name, summarize in ways.items():
            started = time.perf_counter()
            summaries[name] = summarize()
            seconds[name].append(time.perf_counter() - started)
            speed = len(conversations) / seconds[name][-1]
            print(f"repeat {repeat + 1}  {name:6} {seconds[name][-1]:7.1f} s  {speed:6.1f} conversations/s", flush=True)
    ratio = min(seconds["loop"]) / min(seconds["recap"])
    same = sum(ours == theirs for ours, theirs in zip(*summaries.values(), strict=True))
    print(f"summaries that are the same text on both sides: {same} of {len(conversations)}")
    print(f"summarizing, recap / one conversation at a time: {ratio:.2f} times the speed (wanted: at least 3)")
    result = {"benchmark": "summarize_speed", "ratio": round(ratio, 3), "seconds": seconds, "same": same}
    print(json.dumps(result | {"conversations": len(conversations), "max_new_tokens": settings.max_new_tokens}))


if __name__ == "__main__":
    main()
