"""Compare answers of vLLM in 4 bits with those of transformers in 4 and in 16 bits.

Usage: `four_bit.py ADAPTER [without]`. Prints, as JSON, how many answers are the same. With the
adapter beside its base, two tokens of each answer are compared; `without` leaves it out.

This is a process of its own, because vLLM cannot have two engines in one. The plugin that serves
4-bit weights is for GPUs: once they are loaded, it empties the accelerator's cache. Only that keeps
it from a CPU, so it is patched out here.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from job.config.data_sections import ReadingSection
from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.conversations.read import read_strictly
from job.inference.open import fetch_with_adapter, load
from job.inference.serving import ServingWish
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_start import start_vllm
from job.prompt.encode import Encoder
from job.storage.open import list_inputs

DEMO = Path(__file__).parents[2] / "examples" / "demo"
IN_16_BIT = AdapterModelSection(dtype="bfloat16")
IN_4_BIT = AdapterModelSection(dtype="bfloat16", quantization="nf4-double")
SETTINGS = GenerationSection(max_new_tokens=24)
FIRST = SETTINGS.model_copy(update={"max_new_tokens": 2})


def main(uri: str, without: bool) -> None:
    if not torch.cuda.is_available():
        torch.accelerator.empty_cache = lambda: None
    with TemporaryDirectory() as cache:
        model = fetch_with_adapter(uri, IN_4_BIT, StorageSection(), Path(cache))
        model = replace(model, adapter=None) if without else model
        conversations = read_strictly(
            list_inputs([str(DEMO / "conversations.jsonl")]), ReadingSection()
        )
        encoder = Encoder(model.prompt, model.tokenizer, 400)
        prompts = [encoder.encode(conversation).ids for conversation in conversations]
        settings = SETTINGS if without else FIRST
        answers = start_vllm(model, ServingWish(IN_4_BIT, SETTINGS)).generate(prompts, settings)
        found = {"prompts": len(prompts)}
        for name, section in (("in 4 bits", IN_4_BIT), ("in 16 bits", IN_16_BIT)):
            others = TransformersEngine(load(model, section), model.tokenizer).generate(
                prompts, settings
            )
            found[name] = sum(ours == theirs for ours, theirs in zip(answers, others, strict=True))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "without" in sys.argv)
    os._exit(0)  # vLLM empties that cache once more
