"""Put adapters on a base in memory with peft, and choose which of them computes.

Two adapters share the weights of one base. At any time one of them is active, or none.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.errors import DamagedError, is_out_of_memory
from job.model import Model
from job.model.libraries import import_bitsandbytes

FIRST = "default"  # peft's own name of an adapter
SECOND = "challenger"
REWARD_MODEL = "reward"


def attach_adapter(model: Model, folder: Path, dtype: Any = None, name: str = FIRST) -> Model:
    """Put the adapter in `folder` on a base, and return both as one model ready for inference.

    A model that has an adapter already gets one more, of another name, and the first stays active.
    The adapter computes in `dtype`: that of the base, as in training's autocast and in vLLM.
    Without one it stays in float32, as peft loads it, to be merged. Raise DamagedError if it does
    not fit the base.
    """
    adapted = _attach(model, folder, name=name).eval()
    if dtype is not None:
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = parameter.data.to(dtype)
    return adapted


def attach_to_train(model: Model, folder: Path) -> Model:
    """Put the adapter in `folder` on a base, and return both as one model that trains the adapter.

    Its weights are in float32. Raise DamagedError if it does not fit the base.
    """
    return _attach(model, folder, is_trainable=True)


def _attach(model: Model, folder: Path, name: str = FIRST, is_trainable: bool = False) -> Model:
    """Return the model with the adapter. Raise DamagedError if tensors are missing or do not fit.

    peft only warns of tensors that are missing, and only of those of a first adapter.
    """
    import_bitsandbytes()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # peft finds out by itself which way round the weights of a GPT-2 are.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            return _load(model, str(folder), name, is_trainable)
    except (UserWarning, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise DamagedError(f"{folder}: the adapter does not fit its base: {error}") from error


def is_adapted(model: Model) -> bool:
    """Return True if the model has an adapter around its base."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _load(model: Model, folder: str, name: str, is_trainable: bool) -> Model:
    from peft import PeftModel

    device = str(model.device)
    if not is_adapted(model):
        return PeftModel.from_pretrained(
            model, folder, adapter_name=name, is_trainable=is_trainable, torch_device=device
        )
    loaded = model.load_adapter(folder, name, is_trainable=is_trainable, torch_device=device)
    if loaded.missing_keys:
        raise ValueError(f"it has no weights for {', '.join(loaded.missing_keys[:3])}")
    return model


@contextmanager
def active_adapter(model: Model, name: str | None) -> Iterator[None]:
    """During the block, compute with this adapter of the model alone; None is the base alone."""
    if name is None:
        with model.disable_adapter():
            yield
        return
    model.set_adapter(name, inference_mode=True)
    yield
