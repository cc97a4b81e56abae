"""Measure generation: a token step by rows and form of the adapter, and whole summaries."""

import statistics
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from benchmarks.gpu.bases import random_base, write_base
from benchmarks.gpu.rows import counts_of, lengths_of, make_rows
from benchmarks.gpu.trainers import memory, synchronize
from benchmarks.gpu.turns import Turn
from job.config.sections import AdapterModelSection, GenerationSection
from job.config.training_sections import LoraSection
from job.inference.batch import generating
from job.inference.decode import decode, greedy
from job.inference.transformers_engine import TransformersEngine
from job.model import Model
from job.model.adapter import lora_config
from job.model.load import compute_dtype, load_tokenizer

NO_ENDS: frozenset[int] = frozenset()  # every answer has all of its tokens


def decode_by_rounds(specification: Mapping[str, Any], turn: Turn) -> None:
    """Report, by number of rows, the milliseconds of a token step and the rate of the prompts."""
    model, _ = make_model(specification, Path(mkdtemp(prefix="recap-bench-")))
    tokens, new_tokens = specification["prompt_tokens"], specification["new_tokens"]
    run = _static_steps if specification.get("is_static") else _steps
    while True:
        found: dict[str, float] = {}
        for rows in specification["rows"]:
            prompts = make_rows([(tokens, 0)] * rows)["input_ids"]
            prefill, step = run(model, prompts, new_tokens)
            found[f"step_ms_{rows}"] = 1e3 * step
            found[f"prompt_tokens_per_second_{rows}"] = rows * tokens / prefill
        found |= memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # for the other variants
        turn.report(found)


def summarize_by_rounds(specification: Mapping[str, Any], turn: Turn) -> None:
    """Report summaries a second, by recap's engine or one prompt at a time as in a notebook."""
    model, tokenizer = make_model(specification, Path(mkdtemp(prefix="recap-bench-")))
    new_tokens = specification["new_tokens"]
    lengths = lengths_of(specification["rows"])
    if specification["way"] == "loop":
        lengths = lengths[:: specification["every"]]  # it takes seconds for each
    prompts = make_rows([(prompt, 0) for prompt, _ in lengths])["input_ids"]
    settings = GenerationSection(max_new_tokens=new_tokens)
    engine = TransformersEngine(model, tokenizer)
    while True:
        synchronize()
        started = time.perf_counter()
        if specification["way"] == "loop":
            _loop(model, prompts, new_tokens)
        else:
            engine.generate(prompts, settings)
        synchronize()
        seconds = time.perf_counter() - started
        found = {"summaries_per_second": len(prompts) / seconds, **memory()}
        turn.report(found | {"prompt_tokens": counts_of(lengths)["tokens"]})


def make_model(specification: Mapping[str, Any], work: Path) -> tuple[Model, Any]:
    """Return a random base with its adapter in the wanted form, and a tokenizer."""
    from peft import get_peft_model

    folder = write_base(work / "base", specification["shape"])
    section = AdapterModelSection(
        base=str(folder), quantization=specification["quantization"], dtype="auto"
    )
    model = random_base(folder, section)
    form = specification["adapter"]
    if form != "merged":
        adapter = LoraSection.model_validate({"target_modules": specification["target_modules"]})
        model = get_peft_model(model, lora_config(adapter, model))
        dtype = torch.float32 if form == "float32" else compute_dtype("auto")
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(dtype)
    return model.eval(), load_tokenizer(folder)


def _steps(model: Model, prompts: list[list[int]], new_tokens: int) -> tuple[float, float]:
    """Return the seconds of the prompts, and the median seconds of a token step."""
    times = []

    def choose(logits: Any) -> Any:
        synchronize()
        times.append(time.perf_counter())
        return greedy(logits)

    synchronize()
    started = time.perf_counter()
    decode(model, prompts, NO_ENDS, new_tokens, choose)
    return times[0] - started, _median_step(times)


def _static_steps(model: Model, prompts: list[list[int]], new_tokens: int) -> tuple[float, float]:
    """Return the same with a cache of one size and a compiled step, in which nothing is recap's."""
    from transformers import StaticCache

    compiled = _compiled(model)
    ids = torch.tensor(prompts, device=model.device)
    length = ids.shape[1] + new_tokens
    with generating(model):
        cache = StaticCache(config=model.config, max_cache_len=length)
        synchronize()
        started = time.perf_counter()
        output = model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
        times = []
        for _ in range(new_tokens):
            token = output.logits[:, -1].argmax(-1, keepdim=True).clone()
            synchronize()
            times.append(time.perf_counter())
            output = compiled(input_ids=token, past_key_values=cache, logits_to_keep=1)
    return times[0] - started, _median_step(times)


def _compiled(model: Model) -> Any:
    """Return the model compiled once, also in later rounds."""
    if not hasattr(model, "compiled_step"):
        mode = "reduce-overhead" if torch.cuda.is_available() else "default"
        model.compiled_step = torch.compile(model, mode=mode, dynamic=False)
    return model.compiled_step


def _median_step(times: list[float]) -> float:
    return statistics.median(later - earlier for earlier, later in pairwise(times))


def _loop(model: Model, prompts: list[list[int]], new_tokens: int) -> None:
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
            )
