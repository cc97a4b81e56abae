"""Drop the rows of a batch that have ended from the model's cache, whatever the cache is made of.

transformers' own `batch_select_indices` is missing for the states of linear attention, and forgets
those of mixed layers (Falcon-H1) and of compressed attention (DeepSeek-V4). One rule holds for all
of its caches instead: the rows of the batch are the first dimension of every tensor.
"""

from collections.abc import Callable
from typing import Any

OURS = "job"  # job/inference/roomy_cache.py
LIBRARY = "transformers"  # whose caches keep the rule; tests/inference/test_caches.py proves it


class UnknownLayoutError(Exception):
    """A cache holds something whose rows cannot be told from its other dimensions."""


def select_rows(cache: Any, kept: Any, rows: int) -> Any:
    """Return a cache of `rows` rows with the rows of the index `kept` alone; it may change `cache`.

    Raise UnknownLayoutError, before any change, if the cache is of a class that is not
    transformers' own, or holds a tensor that has another first dimension.
    """

    def check(tensor: Any) -> Any:
        # Besides states of rows there are counters: a number, or one for the whole batch.
        if tensor.ndim and tensor.shape[0] not in (0, 1, rows):
            raise UnknownLayoutError(f"a tensor of the shape {tuple(tensor.shape)}")
        return tensor

    def select(tensor: Any) -> Any:
        return tensor.index_select(0, kept) if tensor.ndim and tensor.shape[0] == rows else tensor

    if type(cache).__module__.split(".")[0] != LIBRARY and cache is not None:
        raise UnknownLayoutError(f"an object of {type(cache).__module__}.{type(cache).__name__}")
    _replace_tensors(cache, check)
    return _replace_tensors(cache, select)


def _replace_tensors(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Return the cache, or the part of it, with each tensor replaced, in place where it can be."""
    import torch
    from transformers import PreTrainedConfig

    if isinstance(value, torch.Tensor):
        return replace(value)
    if isinstance(value, tuple):
        return tuple(_replace_tensors(item, replace) for item in value)
    if isinstance(value, list):
        value[:] = [_replace_tensors(item, replace) for item in value]
    elif isinstance(value, dict):
        value.update({key: _replace_tensors(item, replace) for key, item in value.items()})
    elif isinstance(value, PreTrainedConfig) or _has_no_tensors(value):
        pass
    elif type(value).__module__.split(".")[0] in (LIBRARY, OURS):
        _replace_tensors(vars(value), replace)
    else:
        raise UnknownLayoutError(f"an object of {type(value).__module__}.{type(value).__name__}")
    return value


def _has_no_tensors(value: Any) -> bool:
    import torch

    plain = (bool, int, float, str, type, torch.dtype, torch.device)
    return value is None or isinstance(value, plain)
