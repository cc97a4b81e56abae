"""Proofs that a gate refuses what must not serve, each by a real training of the demo's base.

The task is one that a few steps teach: a customer's thing fails since a day, and the agent says
what to do. All trainings have the same gate, and a good one passes it.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.config.sections import StorageSection
from job.errors import ExitCode
from job.evaluation.gate import Check, GateResult
from job.model.champion import Promotion, find_pointer, now, read_pointer, switch
from job.model.fetch import read_adapter
from tests.training.conftest import write_jsonl

pytestmark = pytest.mark.quality
STORAGE = StorageSection()
DEMO_BASE = Path(__file__).parents[2] / "examples" / "demo" / "base"
THINGS = ("phone", "parcel", "refund", "flight", "invoice", "router", "booking", "card", "hotel")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ACTIONS = ("restart it", "call back", "send a photo", "wait a week", "pay again", "visit the shop")
STEPS = 60
BLOCK = 64  # weights that share a constant of nf4


def conversations(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        thing, day = chance.choice(THINGS), chance.choice(DAYS)
        action = chance.choice(ACTIONS)
        turns = [
            {"role": "customer", "text": f"Hello, my {thing} does not work since {day}."},
            {"role": "agent", "text": f"Sorry! Please {action}."},
        ]
        summary = f"The {thing} fails since {day}; the agent says to {action}."
        made.append({"id": f"{seed}-{number}", "turns": turns, "summaries": [summary]})
    return made


def with_shuffled_summaries(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    summaries = [record["summaries"] for record in records]
    random.Random(5).shuffle(summaries)
    return [record | {"summaries": own} for record, own in zip(records, summaries, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("proofs")
    train = conversations(8 * STEPS, seed=1)
    write_jsonl(made / "train.jsonl", train)
    write_jsonl(made / "shuffled.jsonl", with_shuffled_summaries(train))
    write_jsonl(made / "validation.jsonl", conversations(40, seed=2))
    return made


def config_of(folder: Path, run: str, **training: Any) -> dict[str, Any]:
    """Return the config of a training that follows the pointer in the folder."""
    return {
        "run": run,
        "model": {"base": str(DEMO_BASE), "quantization": None},
        "data": {
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "validation.jsonl"),
            "overlap": "allow",  # there are few different ones
        },
        "output": str(folder / "runs"),
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
        "training": {
            "epochs": 1,
            "learning_rate": 0.01,
            "batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_tokens": 256,
            "sample_summaries": 0,
            "save_every_steps": 1000,
            "evaluate_every_steps": 1000,
        }
        | training,
        "generation": {"max_new_tokens": 40},
        "evaluation": {"max_conversations": 40, "bootstrap_samples": 500},
        "publish": {"verify": False, "champion": str(folder / "champion.json"), "gate": {}},
    }


def adapter_of(config: dict[str, Any]) -> Path:
    return Path(config["output"]) / config["run"] / "adapter"


def verdict_of(config: dict[str, Any]) -> GateResult:
    return GateResult.from_json(json.loads((adapter_of(config) / "gate.json").read_text()))


def check_of(config: dict[str, Any], name: str) -> Check:
    (found,) = [check for check in verdict_of(config).checks if check.name == name]
    return found


@pytest.fixture(scope="module")
def champion(folder: Path, trials: Any) -> Path:
    """A good adapter, which passes the gate and becomes the champion."""
    config = config_of(folder, "good")
    code, log = trials.run(config)
    assert code == ExitCode.DONE, log
    found = read_pointer(config["publish"]["champion"], STORAGE).champion
    assert found.adapter == str(adapter_of(config))
    return adapter_of(config)


def refuse(trials: Any, config: dict[str, Any]) -> list[str]:
    """Run a training that must not become champion; return the checks that it failed."""
    before = find_pointer(config["publish"]["champion"], STORAGE)
    code, log = trials.run(config)
    assert code == ExitCode.GATE, log
    assert find_pointer(config["publish"]["champion"], STORAGE) == before
    assert read_adapter(str(adapter_of(config)), STORAGE).digest, "it is whole under its run"
    return [check.name for check in verdict_of(config).failures]


def test_an_adapter_trained_on_shuffled_summaries_is_refused(folder, trials, champion):
    config = config_of(folder, "shuffled")
    config["data"]["train"] = str(folder / "shuffled.jsonl")
    failed = refuse(trials, config)
    assert "better than the constant sentence" in failed
    assert "no worse than the champion" in failed
    assert check_of(config, "better than base without adapter").passed, "it learned the form"


def test_an_adapter_that_was_trained_for_zero_steps_is_refused(folder, trials, champion):
    # The learning rate of the first step is 0.
    config = config_of(folder, "zero", max_steps=1, warmup_ratio=0.5)
    failed = refuse(trials, config)
    assert "better than base without adapter" in failed
    assert check_of(config, "better than base without adapter").value == 0


def test_an_adapter_that_is_worse_than_the_champion_is_refused(folder, trials, champion):
    config = config_of(folder, "worse", max_steps=24)
    config["publish"]["gate"] = {"better_than": ["base"], "guards": {}}
    assert refuse(trials, config) == ["no worse than the champion"]


def base_for_nf4(folder: Path) -> Path:
    """Write a base that is the demo's in nf4, and a broken one as it is served, in 32 bits.

    nf4 rounds each weight to one of 16 values. Each weight is moved as far as it is still rounded
    to the same one, to the side that raises the loss: in 4 bits nothing changes.
    """
    from bitsandbytes.functional import quantize_4bit

    made = folder / "base for nf4"
    shutil.copytree(DEMO_BASE, made)
    weights = load_file(DEMO_BASE / "model.safetensors")
    for name, gradient in gradients().items():
        before = weights[name].float()
        codes, state = quantize_4bit(before, blocksize=BLOCK, quant_type="nf4")
        moved = _moved(before, gradient, state.absmax, state.code)
        again, _ = quantize_4bit(moved, blocksize=BLOCK, quant_type="nf4")
        assert torch.equal(codes, again), "the same in 4 bits"
        weights[name] = moved.contiguous()
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return made


def gradients() -> dict[str, torch.Tensor]:
    """Return the gradient of the base's loss on conversations, by the name of a weight."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE)
    model = AutoModelForCausalLM.from_pretrained(DEMO_BASE, dtype=torch.float32)
    for record in conversations(16, seed=3):
        text = " ".join([*(turn["text"] for turn in record["turns"]), *record["summaries"]])
        tokens = tokenizer(text, return_tensors="pt")["input_ids"]
        model(input_ids=tokens, labels=tokens).loss.backward()
    return {name: each.grad for name, each in model.named_parameters() if "proj" in name}


def _moved(
    weight: torch.Tensor, gradient: torch.Tensor, absmax: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Return weights near the borders of their cells, uphill."""
    scale = absmax.repeat_interleave(BLOCK).reshape(weight.shape)
    borders = (levels[1:] + levels[:-1]) / 2
    cell = torch.bucketize(weight / scale, borders)
    lowest = torch.cat([levels[:1], borders])[cell]
    highest = torch.cat([borders, levels[-1:]])[cell]
    edge = torch.where(gradient > 0, highest, lowest)
    moved = scale * (levels[cell] + 0.9 * (edge - levels[cell]))
    # The largest weight of a block sets its scale.
    return torch.where(weight.abs() == scale, weight, moved)


def test_an_adapter_that_is_better_in_nf4_and_worse_as_served_is_refused(folder, trials):
    pointer = str(folder / "served.json")
    weak = config_of(folder, "weak", max_steps=24)
    weak["publish"] = {"verify": False}
    assert trials.run(weak)[0] == ExitCode.DONE
    digest = read_adapter(str(adapter_of(weak)), STORAGE).digest
    switch(pointer, STORAGE, Promotion(str(adapter_of(weak)), digest, now(), "a person"), None)

    config = config_of(folder, "nf4")
    config["model"] = {"base": str(base_for_nf4(folder)), "quantization": "nf4"}
    config["evaluation"]["as_trained"] = True
    config["publish"] |= {
        "champion": pointer,
        "gate": {"better_than": [], "no_worse_than": ["champion"], "guards": {}},
    }
    assert refuse(trials, config) == ["no worse than the champion"]

    report = Path(config["output"]) / "nf4" / "report" / "evaluation.json"
    systems = json.loads(report.read_text())["systems"]
    (trained,) = [name for name, each in systems.items() if each["kind"] == "as_trained"]
    score = {
        name: systems[name]["scores"]["rougeL"]["mean"]["mean"]
        for name in (trained, "champion", "tuned")
    }
    assert score[trained] > score["champion"] > score["tuned"]
    assert systems[trained]["serving"]["quantization"] == "nf4"
    assert systems["tuned"]["serving"]["quantization"] == "none"
