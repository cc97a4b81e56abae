"""A cache of keys and values with room for further tokens, joined from those of parts of a batch.

transformers' own cache copies all keys and values for each token that it appends: almost half of
the time of a step with 56 rows of the demo's base, on a CPU.
"""

from collections.abc import Sequence
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens for which a layer makes room at once


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """The keys and values of one layer: the first tokens of two buffers, which hold more.

    The buffers are all that it has: what selects their rows selects those of keys and values.
    """

    def __init__(self, keys: Any, values: Any, tokens: int) -> None:
        """Take buffers, each (rows, heads, room, features), whose first `tokens` are used."""
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._buffers = [keys, values]
        self._tokens = tokens

    @property
    def keys(self) -> Any:
        """The keys of all tokens, (rows, heads, tokens, features)."""
        return self._buffers[0][:, :, : self._tokens]

    @property
    def values(self) -> Any:
        """The values of all tokens, (rows, heads, tokens, features)."""
        return self._buffers[1][:, :, : self._tokens]

    def update(
        self, key_states: Any, value_states: Any, *_args: Any, **_kwargs: Any
    ) -> tuple[Any, Any]:
        """Append new tokens, each (rows, heads, tokens, features); return all keys and values."""
        before, after = self._tokens, self._tokens + key_states.shape[-2]
        if after > self._buffers[0].shape[-2]:
            room = after - before + ROOM
            self._buffers = [_with_room([used], before, room) for used in (self.keys, self.values)]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before:after] = new
        self._tokens = after
        return self.keys, self.values


def is_plain(cache: Any) -> bool:
    """Return True for keys and values of all tokens in every layer, and nothing else."""
    return type(cache) is DynamicCache and bool(cache.layers) and all(map(_is_plain, cache.layers))


def repeat(cache: Any, rows: int) -> Any:
    """Return a plain cache of so many rows like the single one of a plain `cache`."""
    repeated = DynamicCache()
    for index, layer in enumerate(cache.layers):
        keys, values = (one.expand(rows, -1, -1, -1) for one in (layer.keys, layer.values))
        repeated.update(keys, values, index)
    return repeated


def join(parts: Sequence[Any], tokens: int) -> Any:
    """Return one cache of the rows of all `parts`, padded with zeros on the left to `tokens`.

    The parts are plain. They are empty afterwards, so that memory holds one layer twice at most.
    """
    layers = []
    for same in zip(*(part.layers for part in parts), strict=True):
        keys = _with_room([layer.keys for layer in same], tokens)
        values = _with_room([layer.values for layer in same], tokens)
        layers.append(RoomyLayer(keys, values, tokens))
        for layer in same:
            layer.keys = layer.values = None
    cache = DynamicCache()
    cache.layers = layers
    return cache


def _is_plain(layer: Any) -> bool:
    return type(layer) is DynamicLayer and layer.is_initialized and layer.keys.ndim == 4


def _with_room(parts: Sequence[Any], tokens: int, room: int = ROOM) -> Any:
    """Return a buffer of the rows of all parts, in which each part ends at `tokens`, before room.

    What is before a shorter part is zero: attention multiplies it by its weight of zero.
    """
    rows = sum(len(part) for part in parts)
    _, heads, _, features = parts[0].shape
    buffer = parts[0].new_empty(rows, heads, tokens + room, features)
    begin = 0
    for part in parts:
        end, first = begin + len(part), tokens - part.shape[-2]
        buffer[begin:end, :, :first] = 0
        buffer[begin:end, :, first:tokens] = part
        begin = end
    return buffer
