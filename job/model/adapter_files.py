"""Check that the files of an adapter are as recap writes them, before a library acts on them.

A manifest says that files are whole, not that they mean well: whoever may write the folder may
write its manifest, too. peft takes targets as patterns that may never end to match, and allocates
matrices of any rank that a config names.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from job.config.training_sections import LoraSection
from job.errors import DamagedError
from job.model.files import ADAPTER_CONFIG
from job.model.headers import tensor_shapes

ADAPTER_WEIGHTS = "adapter_model.safetensors"
NAME = re.compile(r"[A-Za-z0-9_.]+")
HEAD = "score"  # of a reward model, as transformers' models for classification call it
HEAD_WEIGHT = f"base_model.model.{HEAD}.weight"
OF_RANK = ".lora_A.weight"  # the first dimension of such a tensor is the rank

Rule = Callable[[Any], bool]


def check_adapter_files(folder: Path, uri: str, is_reward_model: bool = False) -> None:
    """Raise DamagedError unless config and weights of an adapter are those of a plain LoRA.

    A reward model has a head beside it. `uri` names the folder in errors. Reads the headers of the
    weights only.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise _damaged(uri, f"it has no {ADAPTER_CONFIG}")
    rank = check_adapter_config(path.read_bytes(), uri, is_reward_model)
    shapes = _shapes(folder, uri)
    of_head = shapes.get(HEAD_WEIGHT)
    if is_reward_model and (of_head is None or len(of_head) != 2 or of_head[0] != 1):
        raise _damaged(uri, f"a reward model has {HEAD_WEIGHT} with one row, this has {of_head}")
    for name, shape in shapes.items():
        # Experts share a tensor: its first dimension is a multiple of the rank.
        if name.endswith(OF_RANK) and (not shape or shape[0] == 0 or shape[0] % rank):
            raise _damaged(uri, f"{ADAPTER_CONFIG} has r {rank}, but {name} has shape {shape}")


def check_adapter_config(content: bytes, uri: str, is_reward_model: bool = False) -> int:
    """Return the rank that an adapter_config.json names; raise DamagedError for what is no LoRA."""
    rules = RULES | RULES_OF_A_REWARD_MODEL if is_reward_model else RULES
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(uri, f"{ADAPTER_CONFIG} is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise _damaged(uri, f"{ADAPTER_CONFIG} is no JSON object")
    for key, rule in rules.items():
        if not rule(config.get(key)):
            raise _damaged(uri, f"{ADAPTER_CONFIG} has {key}: {_short(config.get(key))}")
    for key, value in config.items():
        # What a later version of peft adds has no effect while it is empty.
        if key not in rules and value not in (None, False, "", [], {}):
            raise _damaged(uri, f"{ADAPTER_CONFIG} has {key}: {_short(value)}")
    rank: int = config["r"]
    return rank


def lora_section_of(content: bytes, uri: str, is_reward_model: bool = False) -> LoraSection:
    """Return the section `lora` of a config that makes an adapter as this adapter_config.json.

    Raise DamagedError for one that no config of recap makes.
    """
    check_adapter_config(content, uri, is_reward_model)
    config = json.loads(content)
    for key in ("target_parameters", "exclude_modules"):
        if config.get(key):
            raise _damaged(uri, f"{ADAPTER_CONFIG} has {key}: {_short(config[key])}")
    is_dora, is_rslora = bool(config.get("use_dora")), bool(config.get("use_rslora"))
    alpha = config["lora_alpha"]
    if (is_dora and is_rslora) or alpha != int(alpha) or alpha < 1:
        raise _damaged(uri, f"{ADAPTER_CONFIG} has settings that no config of recap can name")
    variant: Literal["lora", "rslora", "dora"] = "rslora" if is_rslora else "lora"
    return LoraSection(
        r=config["r"],
        alpha=int(alpha),
        variant="dora" if is_dora else variant,
        dropout=config.get("lora_dropout") or 0.0,
        target_modules=sorted(config["target_modules"]),
    )


def _shapes(folder: Path, uri: str) -> Mapping[str, list[int]]:
    """Return the shape of each tensor of the adapter, by name."""
    from safetensors import SafetensorError

    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise _damaged(uri, f"it has no {ADAPTER_WEIGHTS}")
    try:
        shapes = tensor_shapes(path)
    except SafetensorError as error:
        raise _damaged(uri, f"{ADAPTER_WEIGHTS} is no safetensors file ({error})") from error
    if not shapes:
        raise _damaged(uri, f"{ADAPTER_WEIGHTS} has no tensors")
    return shapes


def _damaged(uri: str, what: str) -> DamagedError:
    return DamagedError(
        f"{uri} is no adapter that recap trained: {what}; publish the adapter again, or train it "
        "again"
    )


def _short(value: Any) -> str:
    return repr(value)[:80]


def _is(*values: Any) -> Rule:
    # By type, too: 1 is equal to True.
    return lambda value: any(value == each and type(value) is type(each) for each in values)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_name, value))


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_free(value: Any) -> bool:
    return True


# What recap writes, by key. Any other key must be empty.
RULES: dict[str, Rule] = {
    "peft_type": _is("LORA"),
    "task_type": _is("CAUSAL_LM"),
    "r": _is_count,
    "lora_alpha": _is_number,
    "lora_dropout": lambda value: value is None or (_is_number(value) and 0 <= value < 1),
    # Names only: peft takes a text as a regular expression.
    "target_modules": _are_names,
    "target_parameters": lambda value: value in (None, []) or _are_names(value),
    "exclude_modules": lambda value: value in (None, []) or _are_names(value),
    "bias": _is("none", None),
    "use_dora": _is(True, False, None),
    "use_rslora": _is(True, False, None),
    "fan_in_fan_out": _is(True, False, None),
    "inference_mode": _is(True, False, None),
    "init_lora_weights": _is(True, False, None),
    "megatron_core": _is("megatron.core", None),
    "base_model_name_or_path": _is_text,
    "revision": _is_text,
    "peft_version": _is_text,
    "qalora_group_size": _is_free,  # of a variant that is off
}

# A reward model is an adapter with a head of its own, which peft stores with it.
RULES_OF_A_REWARD_MODEL: dict[str, Rule] = {
    "task_type": _is("SEQ_CLS"),
    "modules_to_save": lambda value: value == [HEAD],
}
