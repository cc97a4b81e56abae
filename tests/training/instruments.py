"""Instruments for a training process of the fork server: INSTRUMENTS=name calls one in the child.

Each changes or watches transformers' public methods, never a name of recap's, and fails loudly if a
method is gone. What it prints is in the trial's log.
"""

import ctypes
import json
import resource
import weakref
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer


def count_earlier_models() -> None:
    """Print, before each trainer is made, how many models of earlier trainers are still alive."""
    models: list[weakref.ref[Any]] = []
    make = Trainer.__init__

    def count_and_make(self: Any, *arguments: Any, **named: Any) -> None:
        alive = [model for model in models if model() is not None]
        print(f"earlier models: {len(alive)}", flush=True)
        make(self, *arguments, **named)
        models.append(weakref.ref(self.model))

    Trainer.__init__ = count_and_make


def count_models_beside_a_base() -> None:
    """Print, before each base is loaded, how many trainers, models and optimizers are alive."""
    made: list[weakref.ref[Any]] = []
    train = Trainer.train
    load = AutoModelForCausalLM.from_pretrained

    def note_and_train(self: Any, *arguments: Any, **named: Any) -> Any:
        result = train(self, *arguments, **named)
        parts = [self, self.model, self.accelerator.unwrap_model(self.model), self.optimizer]
        made.extend(weakref.ref(part) for part in parts)
        return result

    def count_and_load(*arguments: Any, **named: Any) -> Any:
        alive = [part for part in made if part() is not None]
        print(f"of {len(made)} parts of a training, {len(alive)} are alive", flush=True)
        return load(*arguments, **named)

    Trainer.train = note_and_train
    AutoModelForCausalLM.from_pretrained = count_and_load


def poison_one_gradient() -> None:
    """Set a gradient of step 5 to NaN, the first time that the step is made."""
    poisoned: list[int] = []
    step = Trainer.training_step

    def poison(self: Any, model: Any, *arguments: Any, **named: Any) -> Any:
        loss = step(self, model, *arguments, **named)
        if self.state.global_step == 4 and not poisoned:
            poisoned.append(5)
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            trained[0].grad.fill_(float("nan"))
        return loss

    Trainer.training_step = poison


def count_page_faults() -> None:
    """Print how many page faults ten tensors cause: before loading, and after the training."""
    pr_set_thp_disable = 41  # of prctl.h; with huge pages there is less to count
    ctypes.CDLL(None).prctl(pr_set_thp_disable, 1, 0, 0, 0)
    print(f"page faults before: {_faults_of_ten_tensors()}", flush=True)
    train = Trainer.train

    def train_and_count(self: Any, *arguments: Any, **named: Any) -> Any:
        result = train(self, *arguments, **named)
        print(f"page faults after: {_faults_of_ten_tensors()}", flush=True)
        return result

    Trainer.train = train_and_count


def _faults_of_ten_tensors() -> int:
    """Make ten tensors of 12,288 pages, one after the other, and return the page faults."""
    # Larger than any block that glibc would keep by itself.
    for _ in range(50):  # until they are where the next ones will be
        torch.ones(48 << 20, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(48 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def load_adapters_otherwise() -> None:
    """Let peft load adapters otherwise in this process: what it scores is not what is written."""
    from peft import PeftModel

    load = PeftModel.from_pretrained

    def load_otherwise(*arguments: Any, **named: Any) -> Any:
        model = load(*arguments, **named)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.1
        return model

    PeftModel.from_pretrained = load_otherwise


def write_another_rank() -> None:
    """Let peft write an adapter whose config names twice its rank."""
    from peft import PeftModel

    write = PeftModel.save_pretrained

    def write_otherwise(self: Any, folder: str, **named: Any) -> None:
        write(self, folder, **named)
        path = Path(folder) / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(config | {"r": 2 * config["r"]}), encoding="utf-8")

    PeftModel.save_pretrained = write_otherwise


def reach_the_hub() -> None:
    """Let huggingface_hub reach the one of HF_ENDPOINT: it was imported offline."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True


def merge_otherwise() -> None:
    """Let peft merge adapters into other weights."""
    from peft.tuners.lora import LoraModel

    merge = LoraModel.merge_and_unload

    def merge_into_others(self: Any, *arguments: Any, **named: Any) -> Any:
        model = merge(self, *arguments, **named)
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter)
        return model

    LoraModel.merge_and_unload = merge_into_others


def write_another_tokenizer() -> None:
    """Let transformers write a tokenizer that reads capitals as small letters."""
    from transformers import PreTrainedTokenizerFast

    write = PreTrainedTokenizerFast.save_pretrained

    def write_otherwise(self: Any, folder: str, *arguments: Any, **named: Any) -> Any:
        written = write(self, folder, *arguments, **named)
        path = Path(folder) / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content | {"normalizer": {"type": "Lowercase"}}), "utf-8")
        return written

    PreTrainedTokenizerFast.save_pretrained = write_otherwise


def see_no_free_memory() -> None:
    """Let psutil see a machine whose memory is full."""
    import psutil

    full = psutil.virtual_memory()._replace(available=0)
    psutil.virtual_memory = lambda: full
