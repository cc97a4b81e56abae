"""The rows of one batch in the middle of their generation, for any causal language model.

Families differ in the arguments of their forward (BLOOM computes positions itself, Mamba has none),
and in what carries the past from step to step: keys and values of attention, states of recurrent
layers, both, or nothing.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from job.inference.cache import UnknownLayoutError, select_rows
from job.model import Model
from job.model.families import all_configs

# Values of a model's config while it generates; a config without such a key is left alone.
WHILE_GENERATING = {
    # Some fine-tunes were saved as they were trained, without a cache.
    "use_cache": True,
    # Mixtures of experts (Mixtral, Qwen-MoE, OLMoE): TRL asks them for the loss that balances their
    # experts, and the config of some bases does. With a cache, the shapes of that loss differ from
    # step to step, and generation fails.
    "output_router_logits": False,
    # A tuple has no field `logits`.
    "return_dict": True,
    # Gigabytes that nobody reads.
    "output_attentions": False,
    "output_hidden_states": False,
}

# The past is an argument and a field of the output, by one of these names: attention and hybrids
# have the first, Mamba and xLSTM the second, RWKV the third.
RECURRENT_CACHE = "cache_params"
CACHES = ("past_key_values", RECURRENT_CACHE, "state")

# Prompts are computed in parts of so many tokens, with padding. Rows of similar lengths have little
# of it, and what lies between two layers stays in the caches of a CPU. A GPU is busy with fewer.
PART_TOKENS = 2048

# An instruction before every conversation is computed once in a batch, if it has so many tokens.
MIN_SHARED = 4

# Code from the Hub may know the older name.
LAST_LOGITS = ("logits_to_keep", "num_logits_to_keep")


@contextmanager
def generating(model: Model) -> Iterator[None]:
    """Compute without gradients during the block, by a config that generates.

    Any algorithm will do: a training that demands those of one order would fail to draw an answer.
    """
    import torch
    from torch.distributed.fsdp import FSDPModule

    before = []
    for config in all_configs(model):
        changed = {key: getattr(config, key) for key in WHILE_GENERATING if hasattr(config, key)}
        before.append((config, changed))
        for key in changed:
            setattr(config, key, WHILE_GENERATING[key])

    # A sharded model reuses its gathered parameters in training. Tensors made in inference mode
    # could not be used there.
    without_gradients = torch.no_grad if isinstance(model, FSDPModule) else torch.inference_mode
    is_strict = torch.are_deterministic_algorithms_enabled()
    if is_strict:
        torch.use_deterministic_algorithms(False)
    try:
        with without_gradients():
            yield
    finally:
        if is_strict:
            torch.use_deterministic_algorithms(True)
        for config, changed in before:
            for key, value in changed.items():
                # sdpa refuses output_attentions, even if a config.json had it. Nobody reads them.
                with suppress(ValueError):
                    setattr(config, key, value)


class Batch:
    """Prompts that are generated for together. `logits` are of each row's next token.

    `padding` is the token before shorter prompts: any, unless the model sees what is masked.
    """

    def __init__(self, model: Model, prompts: Sequence[list[int]], padding: int = 0) -> None:
        self._model = model
        self._takes, self._takes_any = forward_arguments(model)
        self._cache_name = next((name for name in CACHES if name in self._takes), None)
        self._cache: Any = None
        self._cache_is_whole = True  # the model has no part of the past in its modules

        # The input of the next forward pass, each (rows, tokens): whole prompts, then one token.
        self._ids: Any = None
        self._mask: Any = None  # of the past, too
        self._positions: Any = None  # from a row's first real token, whatever its padding
        self.logits = self._begin(prompts, padding)  # (rows, vocabulary)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and their part of the cache.

        Raise UnknownLayoutError, and keep all rows, if the cache cannot be taken apart.
        """
        import torch

        if not self._cache_is_whole:
            raise UnknownLayoutError("states that the model keeps in its modules")
        index = torch.tensor(rows, device=self._model.device)
        self._cache = select_rows(self._cache, index, len(self._ids))
        self._ids = self._ids[index]
        self._mask = self._mask[index]
        self._positions = self._positions[index]

    def extend(self, tokens: Any) -> None:
        """Append a token to each row, and compute the logits of the next one."""
        import torch

        column = tokens[:, None]
        next_position = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(column), 1)], dim=1)
        if self._cache is None:
            # The model has no cache: it computes the whole row again.
            self._ids = torch.cat([self._ids, column], dim=1)
            self._positions = torch.cat([self._positions, next_position], dim=1)
        else:
            self._ids = column
            self._positions = next_position
        self.logits = self._forward(use_cache=self._cache is not None)

    def _begin(self, prompts: Sequence[list[int]], padding: int) -> Any:
        """Run the prompts, and find out what the model keeps of them. Return their logits."""
        if self._keeps_keys_alone():
            logits = self._begin_in_parts(prompts, padding)
            if logits is not None:
                return logits

        self._set_prompts(prompts, padding)
        logits = self._forward(use_cache=True)
        if self._cache is None and self._cache_name == CACHES[0]:
            # RecurrentGemma fills a cache that it is given and returns none. What its recurrent
            # layers remember is in its modules.
            cache = _empty_cache(self._model)
            self._cache = cache
            self._cache_is_whole = False
            logits = self._forward(use_cache=True)
            if not any(getattr(layer, "is_initialized", False) for layer in cache.layers):
                self._cache = None
                self._cache_is_whole = True
        return logits

    def _begin_in_parts(self, prompts: Sequence[list[int]], padding: int) -> Any:
        """Run the tokens that all prompts begin with once, and the rest in parts; join the caches.

        Return None if the model keeps something else: code from the Hub may have its own cache.
        """
        import torch

        from job.inference.roomy_cache import is_plain, join, repeat

        # Padding comes between what is shared and the rest of a shorter prompt. A model that is not
        # told the positions may take a column for a position (MPT).
        shared, begun = shared_tokens(prompts) if "position_ids" in self._takes else 0, None
        if shared:
            self._set_prompts([prompts[0][:shared]], padding)
            self._forward(use_cache=True)
            begun = self._cache
            if not is_plain(begun):
                return None

        caches, inputs, logits = [], [], []
        for part in divide(prompts):
            self._set_prompts(part, padding, shared)
            self._cache = repeat(begun, len(part)) if shared else None
            logits.append(self._forward(use_cache=True))
            if not is_plain(self._cache):
                return None
            caches.append(self._cache)
            inputs.append((self._ids[:, -1:], self._positions[:, -1:], self._mask))

        ids, positions, masks = zip(*inputs, strict=True)
        self._ids, self._positions = torch.cat(ids), torch.cat(positions)
        width = max(mask.shape[1] for mask in masks)
        pad = torch.nn.functional.pad
        self._mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
        self._cache = join(caches, width)
        return torch.cat(logits)

    def _set_prompts(self, prompts: Sequence[list[int]], padding: int, in_cache: int = 0) -> None:
        """Make prompts the next input, without the first tokens that will be in the cache."""
        import torch

        rest = [prompt[in_cache:] for prompt in prompts]
        self._ids, mask = _left_padded(rest, padding, self._model.device)
        self._mask = torch.cat([mask.new_ones(len(mask), in_cache), mask], dim=1)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, in_cache:]
        self._cache = None

    def _keeps_keys_alone(self) -> bool:
        """Return True if the past is expected to be keys and values of all tokens."""
        from transformers.cache_utils import DynamicLayer

        if self._cache_name != CACHES[0]:
            return False
        try:
            layers = _empty_cache(self._model).layers
        except AttributeError:  # a config from the Hub that does not say how many layers there are
            return False
        return all(type(layer) is DynamicLayer for layer in layers)

    def _forward(self, use_cache: bool) -> Any:
        """Return the logits after each row's last token, (rows, vocabulary); extend the cache."""
        named: dict[str, Any] = {"input_ids": self._ids}
        # A recurrent layer masks padding, of which a single new token has none: Mamba would
        # multiply it by the mask of the whole row.
        is_new_token = self._cache is not None and self._ids.shape[1] == 1
        if "attention_mask" in self._takes and not (
            is_new_token and self._cache_name == RECURRENT_CACHE
        ):
            named["attention_mask"] = self._mask
        if "position_ids" in self._takes:
            named["position_ids"] = self._positions
        if self._cache_name is not None:
            named[self._cache_name] = self._cache
            if "use_cache" in self._takes or self._takes_any:
                named["use_cache"] = use_cache
        for name in LAST_LOGITS:
            if name in self._takes:
                named[name] = 1

        output = self._model(**named)
        if self._cache_name is not None and use_cache:
            cache = getattr(output, self._cache_name, None)
            self._cache = self._cache if cache is None else cache
        return output.logits[:, -1]


def divide(prompts: Sequence[list[int]]) -> list[Sequence[list[int]]]:
    """Return the prompts in parts that follow each other, of at most PART_TOKENS with padding.

    A longer prompt is a part of its own. If lengths descend, those of a part are similar.
    """
    parts: list[Sequence[list[int]]] = []
    start, width = 0, 0
    for end, prompt in enumerate(prompts):
        wider = max(width, len(prompt))
        if end > start and (end - start + 1) * wider > PART_TOKENS:
            parts.append(prompts[start:end])
            start, wider = end, len(prompt)
        width = wider
    return [*parts, prompts[start:]]


def shared_tokens(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens all prompts share and leave a rest; 0 if it is hardly any."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in the order of lists: the two that differ first
    at_most = min(map(len, prompts)) - 1
    shared = 0
    while shared < at_most and first[shared] == last[shared]:
        shared += 1
    return shared if shared >= MIN_SHARED else 0


def forward_arguments(model: Model) -> tuple[set[str], bool]:
    """Return the names of the arguments of a model's forward, and True if it takes any others.

    An adapter, a sharding or autocast around the model passes on what it is called with.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(type(base).forward).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return {parameter.name for parameter in parameters}, takes_any


def _empty_cache(model: Model) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _left_padded(prompts: Sequence[list[int]], padding: int, device: Any) -> tuple[Any, Any]:
    """Return ids and attention mask, both (rows, tokens).

    Padded on the left, so that each row's last column is its last token, whose logits come next.
    """
    import torch

    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[padding] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)
