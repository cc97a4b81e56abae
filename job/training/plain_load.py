"""Load a base with its adapter as a stranger would, by transformers and peft alone, and ask it.

A program: it reads one line of JSON from stdin and writes its answer to the file that this line
names. It imports nothing of recap, so that no mistake in recap's own loading can hide in it. It
ends as soon as stdin is closed: with the process that started it, which may start it ahead of the
request.
"""

import gc
import hashlib
import json
import math
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

SCORES = "AutoModelForSequenceClassification"  # the class of a reward model


def main() -> None:
    """Answer the request on stdin."""
    # A stop signal is for the parent, whose end closes stdin.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_libraries()
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)  # no request will come
    request = json.loads(line)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    found = answer(request)
    Path(request["answer"]).write_text(json.dumps(found), encoding="utf-8")


def _import_libraries() -> None:
    """Import what takes seconds. Not bitsandbytes nor peft: on a GPU they would take memory."""
    gc.disable()  # there is no garbage in modules
    from transformers import AutoModelForCausalLM  # noqa: F401

    gc.enable()
    gc.freeze()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load what the request names, and return the fields of a `PlainAnswer`."""
    model = load(request)
    found: dict[str, Any] = {
        "versions": _versions(request),
        "readings": _readings(request),
        "answers": _answers(model, request),
    }
    if request["adapter"] and request["texts"]:
        if request["auto_class"] == SCORES:
            found["adapter"] = digest_of_adapter(model, _dtype(request))
        disable_adapter(model)
        found["answers_of_base"] = _answers(model, request)
    return found


def _answers(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    prompts = request["prompts"]
    if request["auto_class"] == SCORES:
        rows = [prompt + text for prompt, text in zip(prompts, request["texts"], strict=False)]
        scores = [score(model, row) for row in rows]
        return {"tokens": [], "expected": [], "scores": scores, "four_bit": count_four_bit(model)}
    return {
        "tokens": [generate(model, prompt, request) for prompt in prompts],
        "expected": [
            count_expected(model, prompt, text)
            for prompt, text in zip(prompts, request["texts"], strict=False)
        ],
    }


def _readings(request: dict[str, Any]) -> dict[str, Any]:
    """Return the prompts as the tokenizer beside the weights reads and writes them."""
    import transformers

    folder = request["adapter"] or request["base"]
    # As mistral-common is beside vLLM alone, and would cut control tokens into letters.
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, mistral_format=False)
    return {
        "ids": [
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in request["prompt_texts"]
        ],
        "texts": [tokenizer.decode(prompt) for prompt in request["prompts"]],
    }


def _versions(request: dict[str, Any]) -> dict[str, str]:
    names = ("peft", "transformers") if request["adapter"] else ("transformers",)
    return {name: sys.modules[name].__version__ for name in names}


def load(request: dict[str, Any]) -> Any:
    """Load the base, in 4 bits if the request says so, and the adapter if it names one."""
    import torch
    import transformers

    dtype = _dtype(request)
    arguments: dict[str, Any] = {}
    if request["quantization"] in ("nf4", "nf4-double"):
        arguments["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=request["quantization"] == "nf4-double",
            bnb_4bit_compute_dtype=dtype,
        )
    if request["auto_class"] == SCORES:
        arguments["num_labels"] = 1
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    kind = getattr(transformers, request["auto_class"])
    model = kind.from_pretrained(request["base"], dtype=dtype, device_map={"": device}, **arguments)
    if request["auto_class"] == SCORES:
        # Else a row would end before an end token that is the pad token.
        model.config.get_text_config().pad_token_id = None
    if request["adapter"]:
        model = attach(model, request["adapter"])
    # Not the base's own, which may punish repetitions: no engine of recap does.
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=request["ends"], pad_token_id=request["ends"][0], do_sample=False
    )
    return model.eval()


def _dtype(request: dict[str, Any]) -> Any:
    import torch

    return getattr(torch, request["dtype"])


def attach(model: Any, adapter: str) -> Any:
    """Put the adapter on its base. Raise ValueError if weights are missing: peft only warns."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, adapter)
        except UserWarning as warning:
            raise ValueError(str(warning)) from warning


def digest_of_adapter(model: Any, dtype: Any, name: str = "default") -> str:
    """Return a digest of an adapter in memory: its tensors as numbers of `dtype`, and its scales.

    recap digests what it has scored with by the same function. `dtype` is what both compute in.
    """
    import torch
    from peft import get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    digest = hashlib.sha256()
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    for key in sorted(tensors):
        numbers = tensors[key].detach().to("cpu", dtype).to(torch.float32)
        digest.update(f"{key} {list(numbers.shape)}\n".encode())
        digest.update(numbers.contiguous().numpy().tobytes())
    for key, module in model.named_modules():
        if isinstance(module, LoraLayer):
            digest.update(f"{key} {module.scaling.get(name)}\n".encode())
    return digest.hexdigest()


def disable_adapter(model: Any) -> None:
    """Leave the base as it was without the adapter, but with the head of a reward model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    # Not by `model.disable_adapter`, which would put a new, random head in place of the trained.
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(False)


def generate(model: Any, prompt: list[int], request: dict[str, Any]) -> list[int]:
    """Return the most likely answer to a prompt, token by token."""
    import torch

    ids = torch.tensor([prompt], device=model.device)
    answer = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request["max_new_tokens"],
    )
    tokens: list[int] = answer[0, len(prompt) :].tolist()
    return tokens


def count_expected(model: Any, prompt: list[int], text: list[int]) -> int:
    """Return how many tokens of a text the model, reading on after the prompt, expects most."""
    import torch

    ids = torch.tensor([prompt + text], device=model.device)
    with torch.no_grad():
        likely = model(input_ids=ids).logits[0].argmax(-1)
    # The logits at a position are those of the next token.
    return int((likely[len(prompt) - 1 : -1] == ids[0, len(prompt) :]).sum())


def score(model: Any, row: list[int]) -> float:
    """Return the score of a text by its ids, alone in its batch."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row], device=model.device)).logits
    return float(logits[0, 0])


def count_four_bit(model: Any) -> int:
    """Return how many parameters of the base bitsandbytes holds in 4 bits."""
    states = [getattr(weight, "quant_state", None) for weight in model.parameters()]
    return sum(math.prod(state.shape) for state in states if state is not None)


if __name__ == "__main__":
    main()
