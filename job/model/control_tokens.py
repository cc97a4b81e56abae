"""Quirks of tokenizers: control tokens that begin, pad and end a text, and none that a text names.

As in `families`, a rule goes by a property, and its docstring has the families that need it.
"""

import re
from pathlib import Path
from typing import Any

from job.model import Tokenizer
from job.model.files import CONFIG, GENERATION_CONFIG, files_in_folder, read_json

# A run of spaces and line ends; ▁ is sentencepiece's space.
BLANK = re.compile(r"[\s▁]+")


def add_pad_token(tokenizer: Tokenizer) -> None:
    """Make the end token the pad token of a tokenizer that has none.

    Llama, Mistral and GPT-2 have none. Without one, the first batch of rows of unequal lengths
    raises ValueError: "Asking to pad but the tokenizer does not have a padding token". Any token
    will do, since padding is masked and has no label.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def begin_tokens(tokenizer: Tokenizer) -> list[str]:
    """Return the control tokens that the tokenizer itself puts in front of a text, if any.

    Llama, Mistral and Gemma were trained with a begin token before every text: Gemma generates
    gibberish without it, the others score worse. GLM-4 has two. Many have a begin token that no
    text begins with (`<|im_start|>` of SmolLM2, `<|endoftext|>` of GPT-NeoX), or none (Qwen). Chat
    templates contain their own.
    """
    text: list[int] = tokenizer("x", add_special_tokens=False)["input_ids"]
    ids: list[int] = tokenizer("x")["input_ids"]
    for start in range(len(ids)):
        if ids[start : start + len(text)] == text:
            found: list[str] = tokenizer.convert_ids_to_tokens(ids[:start])
            return found
    return []


def end_tokens(tokenizer: Tokenizer, generation_config: Any) -> frozenset[int]:
    """Return the ids that end an answer: the tokenizer's end token, and the generation config's.

    Training teaches the tokenizer's end token. Chat models were taught to end a turn with another
    one before (Gemma's `<end_of_turn>`, Llama 3's `<|eot_id|>`), which only the generation config
    lists. Without it, answers run on to the limit, and repeat themselves.
    """
    found = _ids(getattr(generation_config, "eos_token_id", None))
    return found | _ids(tokenizer.eos_token_id)


def recorded_end_ids(base: Path) -> frozenset[int]:
    """Return the ids that end an answer by the base's generation config, or by its config."""
    files = files_in_folder(base, str(base))
    config = read_json(files, CONFIG)
    text_config = config.get("text_config")
    places = [config, text_config if isinstance(text_config, dict) else {}]
    if GENERATION_CONFIG in files.sizes:
        places.insert(0, read_json(files, GENERATION_CONFIG))
    for place in places:
        found = _ids(place.get("eos_token_id"))
        if found:
            return found
    return frozenset()


def _ids(value: Any) -> frozenset[int]:
    """Return the ids of a config's value: one, a list of them, or none."""
    several = value if isinstance(value, list) else [value]
    return frozenset(id for id in several if isinstance(id, int))


def hide_control_tokens(state: dict[str, Any]) -> None:
    """Change a fast tokenizer's state so that no text of a customer encodes as a control token.

    `state` is the JSON of its core, whose `encode_special_tokens` must be set, too.

    Chat models (Qwen, DeepSeek-R1) add tokens such as `<tool_call>` and `<think>` as not
    special, and the library splits only special ones: a customer who types one would steer the
    model. So every added token becomes special. Runs of spaces and line ends, which GPT-NeoX, Phi
    and Gemma add as tokens, are ordinary text and stay: without them, ids would differ from those
    that the base was trained on.

    A Unigram vocabulary (XGLM and other models of sentencepiece) lists the control tokens among its
    pieces, and finds them in a text even if they are to be split. There they get names that no text
    contains: records with a NUL character are rejected.
    """
    controls = []
    for token in state["added_tokens"]:
        if not BLANK.fullmatch(token["content"]):
            token["special"] = True
            controls.append(token)

    if state["model"]["type"] != "Unigram":
        return
    vocabulary = state["model"]["vocab"]
    for token in controls:
        id = token["id"]
        if id < len(vocabulary) and vocabulary[id][0] == token["content"]:
            hidden = f"\0{id}\0"
            token["content"] = hidden
            vocabulary[id][0] = hidden
