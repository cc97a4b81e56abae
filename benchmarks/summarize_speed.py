"""Compare four ways to summarize: a notebook's loop, recap on transformers, vLLM, recap on vLLM.

`python benchmarks/summarize_speed.py [--adapter DIR] [--conversations FILE] [--limit N]
[--repeats N]` measures the ways by turns. It prints a line per measurement, and the ratios of the
fastest ones in conversations per second (above 1 is faster): other work of the machine can only
slow them down.

Each way has a process of its own, which loads the model before it is measured. Prompts are made and
answers are decoded within the measured time. vLLM by itself is `vllm.LLM.generate` with all prompts
at once. Where vLLM is not installed, its two ways are left out. The adapter is merged into its base
for all four, since vLLM's kernels for adapters are for GPUs.

Without an adapter, `recap train` makes one first, in so few steps that it writes summaries, if not
good ones. It needs recap installed, or the repository's root on PYTHONPATH.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from job.config.data_sections import ReadingSection
from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.config.serving_section import EngineName
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.inference.choose import open_engine
from job.inference.open import FetchedModel, fetch_with_adapter, load, merge
from job.inference.reader import Reader
from job.inference.serving import ServingWish
from job.inference.summaries import input_budget, summarize_conversations
from job.inference.vllm_start import is_installed
from job.model.load import context_tokens
from job.prompt.encode import Encoder
from job.storage.open import list_inputs
from job.storage.scratch import cache_folder

STEPS = 80
DATA = Path(__file__).parent.parent / "examples" / "demo"
SECTION = AdapterModelSection(dtype="float32")
# Least ratios of the speed of one way to that of another.
WANTED = [("transformers", "loop", 4.0), ("vllm", "raw vllm", 0.95), ("vllm", "transformers", 1.0)]
Summarize = Callable[[list[Conversation]], list[str]]


def with_recap(model: FetchedModel, settings: GenerationSection, engine: EngineName) -> Summarize:
    """Summarize with one of recap's engines."""
    wish = ServingWish(SECTION, settings, engine)
    opened = open_engine(model, wish, cache_folder()).engine
    reader = Reader(
        Encoder(model.prompt, model.tokenizer, input_budget(opened.context_tokens, settings))
    )

    def summarize(conversations: list[Conversation]) -> list[str]:
        # An error ends the measurement.
        found = summarize_conversations(conversations, opened, reader, settings, isolates=False)
        return found.texts

    return summarize


def one_at_a_time(model: FetchedModel, settings: GenerationSection) -> Summarize:
    """Summarize as a notebook does: encode, generate, decode, then the next one."""
    import torch

    loaded = load(model, SECTION)

    def summarize(conversations: list[Conversation]) -> list[str]:
        summaries = []
        for prompt in prompts_of(model, settings, conversations):
            ids = torch.tensor([prompt], device=loaded.device)  # (1, tokens)
            output = loaded.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=settings.max_new_tokens,
                do_sample=False,
                pad_token_id=model.tokenizer.pad_token_id,
            )
            new = output[0, ids.shape[1] :]
            summaries.append(model.tokenizer.decode(new, skip_special_tokens=True).strip())
        return summaries

    return summarize


def raw_vllm(model: FetchedModel, settings: GenerationSection) -> Summarize:
    """Summarize with vLLM's own class and its defaults, which gets all prompts at once."""
    from vllm import LLM, SamplingParams

    llm = LLM(str(model.base.path), tokenizer=model.tokenizer.name_or_path, dtype="float32")
    parameters = SamplingParams(temperature=0, max_tokens=settings.max_new_tokens)

    def summarize(conversations: list[Conversation]) -> list[str]:
        encoded = prompts_of(model, settings, conversations)
        prompts = [{"prompt_token_ids": ids} for ids in encoded]
        answers = llm.generate(prompts, parameters, use_tqdm=False)
        return [answer.outputs[0].text.strip() for answer in answers]

    return summarize


def prompts_of(
    model: FetchedModel, settings: GenerationSection, conversations: list[Conversation]
) -> list[list[int]]:
    """Return the prompts as recap makes them."""
    budget = (context_tokens(model.base.path) or 1 << 20) - settings.max_new_tokens
    encoder = Encoder(model.prompt, model.tokenizer, budget)
    return [encoder.encode(conversation).ids for conversation in conversations]


WAYS: dict[str, Callable[[FetchedModel, GenerationSection], Summarize]] = {
    "loop": one_at_a_time,
    "transformers": lambda model, settings: with_recap(model, settings, "transformers"),
    "raw vllm": raw_vllm,
    "vllm": lambda model, settings: with_recap(model, settings, "vllm"),
}


def serve(way: str, options: argparse.Namespace) -> None:
    """Load once, then measure for each line from stdin and answer with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout
    conversations = read_strictly(list_inputs([options.conversations]), ReadingSection())
    conversations = conversations[: options.limit]
    settings = GenerationSection(max_new_tokens=options.max_new_tokens)
    model = fetch_with_adapter(options.adapter, SECTION, StorageSection(), cache_folder())
    summarize = WAYS[way](merge(model, SECTION, cache_folder()), settings)
    summarize(conversations[:2])  # first calls of a process are slower
    print("loaded", file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        summaries = summarize(conversations)
        print(json.dumps([time.perf_counter() - started, summaries]), file=answers, flush=True)


def train_adapter(work: Path) -> str:
    """Train an adapter that makes the demo's base summarize, and return its folder."""
    config = {
        "run": "bench",
        "model": {"base": str(DATA / "base")},
        "data": {"train": str(DATA / "train.jsonl"), "validation": str(DATA / "validation.jsonl")},
        "output": str(work),
        "training": {
            "max_steps": STEPS,
            "batch_size": 8,
            "gradient_accumulation_steps": 1,
            "learning_rate": 3e-3,
        },
        "lora": {"r": 64, "alpha": 64},
        "evaluation": {"max_conversations": 1},
    }
    (work / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "job", "train", str(work / "train.yaml")],
        check=True,
        capture_output=True,
    )
    return str(work / "bench" / "adapter")


def start(way: str, adapter: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    """Start the process of one way and block until its model is loaded."""
    arguments = ["--way", way, "--adapter", adapter, "--conversations", options.conversations]
    numbers = ["--limit", str(options.limit), "--max-new-tokens", str(options.max_new_tokens)]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments, *numbers],
        env=environment | os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n", f"{way} does not start"
    return process


def measure(process: "subprocess.Popen[str]") -> tuple[float, list[str]]:
    """Have a process summarize; return the seconds and the summaries."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    seconds, summaries = json.loads(process.stdout.readline())
    return seconds, summaries


def report(seconds: dict[str, list[float]], summaries: dict[str, list[str]]) -> dict[str, Any]:
    """Print and return the wanted ratios, and the number of summaries that equal the loop's."""
    best = {way: min(times) for way, times in seconds.items()}
    ratios = {}
    missed = []
    for ours, theirs, wanted in WANTED:
        if ours not in best or theirs not in best:
            continue
        name = f"{ours} / {theirs}"
        ratio = best[theirs] / best[ours]
        ratios[name] = round(ratio, 3)
        verdict = ""
        if ratio < wanted:
            missed.append(name)
            verdict = ": MISSED"
        print(f"{name}: {ratio:.2f} times the speed (wanted: at least {wanted}){verdict}")
    same = {way: sum(map(str.__eq__, texts, summaries["loop"])) for way, texts in summaries.items()}
    print(f"summaries with the loop's very words: {same} of {len(summaries['loop'])}")
    return {"ratios": ratios, "missed": missed, "seconds": seconds, "same": same}


def main() -> int:
    """Measure all ways by turns and print the ratios; return 1 if one is too small."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", help="a folder; else one is trained first")
    parser.add_argument("--conversations", default=str(DATA / "heldout.jsonl"))
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        serve(options.way, options)
        return 0
    ways = [way for way in WAYS if is_installed() or "vllm" not in way]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    summaries: dict[str, list[str]] = {}
    with TemporaryDirectory() as work:
        adapter = options.adapter or train_adapter(Path(work))
        processes = {way: start(way, adapter, options) for way in ways}
        for repeat in range(options.repeats):
            for way, process in processes.items():
                took, summaries[way] = measure(process)
                seconds[way].append(took)
                speed = len(summaries[way]) / took
                print(
                    f"repeat {repeat + 1}  {way:12} {took:7.1f} s  {speed:6.1f} conversations/s",
                    flush=True,
                )
        for process in processes.values():
            process.communicate()
    found = report(seconds, summaries)
    settings = {"max_new_tokens": options.max_new_tokens}
    print(json.dumps({"benchmark": "summarize_speed", **found, **settings}))
    return int(bool(found["missed"]))


if __name__ == "__main__":
    sys.exit(main())
