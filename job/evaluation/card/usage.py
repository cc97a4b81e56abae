"""The ways to use an adapter: by recap, and by transformers and peft alone.

The code stands on the card as it runs: in the folder of the card, without a change.
"""

import json
from pathlib import PurePosixPath
from typing import Any

from job.config.sections import to_plain
from job.evaluation.card.facts import CardFacts, fenced, yaml_of

CAUSAL = "AutoModelForCausalLM"
LOAD = 'dtype="auto", device_map="auto"'


def usage(facts: CardFacts) -> str:
    """Return the section on how to use the adapter."""
    if facts.reward is not None:
        return _usage_of_reward_model()
    parts = [
        "With recap, which also handles conversations that are too long, and files of them:",
        fenced("yaml", yaml_of(_night(facts))),
        fenced("sh", "recap summarize config.yaml"),
        _alone(facts),
        fenced("python", recipe(facts)),
        "The rest of a program that summarizes. `prompt.json` holds the text around the "
        "conversation. Control tokens that a customer typed must stay ordinary text, so the "
        "conversation is encoded apart from it.",
        fenced("python", program(facts)),
    ]
    return "\n\n".join(parts)


def _usage_of_reward_model() -> str:
    return (
        "Its weights are written for `AutoModelForSequenceClassification` of transformers with "
        "`num_labels=1` and `PeftModel` of peft. The score is the head's at the last token of "
        "prompt, summary and end token. Score one text at a time, after "
        "`model.config.get_text_config().pad_token_id = None`: transformers leaves out an end "
        "token that is the pad token, too."
    )


def recipe(facts: CardFacts) -> str:
    """Return the lines of Python that load the base and the adapter, at most three.

    The base is found where it was: on the Hub, under s3:// by the AWS command line, or in a folder.
    """
    base = str(facts.base["uri"])
    kind = facts.weights.auto_class if facts.weights else CAUSAL
    if facts.merged:
        return f'import transformers\nmodel = transformers.{kind}.from_pretrained(".", {LOAD})\n'
    if facts.is_base_on_hub and kind == CAUSAL:
        # adapter_config.json names the base and its commit.
        return (
            "from peft import AutoPeftModelForCausalLM\n"
            f'model = AutoPeftModelForCausalLM.from_pretrained(".", {LOAD})\n'
        )
    lines = ["import peft, transformers"]
    where = json.dumps(facts.base_name)
    if facts.is_base_on_hub:
        where += f", revision={json.dumps(facts.base['revision'])}"
    if base.startswith("s3://"):
        lines = ["import subprocess, peft, transformers"]
        where = json.dumps(f"base-{PurePosixPath(base).name}")
        words = ["aws", "s3", "sync", base, json.loads(where)]
        if facts.config.storage.endpoint_url:
            words += ["--endpoint-url", facts.config.storage.endpoint_url]
        lines.append(f"subprocess.run({json.dumps(words)}, check=True)")
    loaded = f"transformers.{kind}.from_pretrained({where}, {LOAD})"
    lines.append(f'model = peft.PeftModel.from_pretrained({loaded}, ".")')
    return "\n".join(lines) + "\n"


def program(facts: CardFacts) -> str:
    """Return a program that goes on after `recipe`, and encodes exactly as recap does."""
    generation = facts.config.generation
    sampling = "do_sample=False"
    if generation.temperature:
        sampling = f"do_sample=True, temperature={generation.temperature}, top_p={generation.top_p}"
    encode = _ENCODE_CHAT if facts.prompt.control_tokens else _ENCODE_INSTRUCTION
    return (
        f"{_IMPORTS}{_TURNS}{encode}"
        "# Not the base's own settings, which may punish repetitions.\n"
        f"model.generation_config = GenerationConfig(eos_token_id={list(facts.ends)}, {sampling})\n"
        "ids = torch.tensor([ids], device=model.device)\n"
        "answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), "
        f"max_new_tokens={generation.max_new_tokens})\n"
        "print(tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True).strip())\n"
    )


def _night(facts: CardFacts) -> dict[str, Any]:
    """Return the config of a night. An adapter has its prompt, merged weights have none."""
    here = "path/to/this/folder"
    night: dict[str, Any] = {"run": "nightly", "input": "conversations.jsonl"}
    if facts.merged:
        prompt = to_plain(facts.config.prompt)
        return night | {"output": "summaries/", "model": {"base": here}, "prompt": prompt}
    return night | {"adapter": here, "output": "summaries/"}


def _alone(facts: CardFacts) -> str:
    """Return what the lines of `recipe` do, and where they find the base."""
    if facts.merged:
        return "Or with transformers alone. In the folder of this card, these lines load it:"
    start = "Or with transformers and peft alone. In the folder of this card, these lines load the"
    base = str(facts.base["uri"])
    if facts.is_base_on_hub:
        return f"{start} adapter, and its base from the Hub:"
    if base.startswith("s3://"):
        return f"{start} adapter. The second copies its base by the command line of AWS:"
    return f"{start} adapter beside its base, which is a folder of the machine that trained it:"


_IMPORTS = """\
import json

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig

with open("prompt.json", encoding="utf-8") as file:
    prompt = json.load(file)
tokenizer = AutoTokenizer.from_pretrained(".")

"""
_TURNS = (
    'turns = [("customer", "My parcel is five days late, where is it?"), '
    '("agent", "Sorry! It arrives tomorrow by noon.")]\n'
    """\
text = "\\n".join(f"{prompt['labels'].get(role, role)}: {said}" for role, said in turns)

core = json.loads(tokenizer.backend_tokenizer.to_str())
"""
    'for token in core["added_tokens"]:  # also those that a chat model marks as not special, such '
    "as <think>\n"
    """\
    token["special"] |= not token["content"].replace("▁", " ").isspace()
core = Tokenizer.from_str(json.dumps(core | {"truncation": None, "padding": None}))
core.encode_special_tokens = True


def plain(text):
    return core.encode(text, add_special_tokens=False).ids


"""
)
_ENCODE_INSTRUCTION = """\
start = tokenizer.convert_tokens_to_ids(prompt["begin"])
ids = start + plain(prompt["before"] + text + prompt["after"])
"""
_ENCODE_CHAT = """\
before = tokenizer(prompt["before"], add_special_tokens=False)["input_ids"]
after = tokenizer(prompt["after"], add_special_tokens=False)["input_ids"]
ids = before + plain(text) + after
"""
