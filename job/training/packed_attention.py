"""Let packed rows attend within themselves by a kernel that knows where each of them ends.

TRL joins all rows of a micro-batch into one. transformers' sdpa then computes all pairs of tokens
under a dense mask, most of which is empty. torch has a kernel for rows of any length on GPUs, which
needs no mask and no package. It has been tried here on a CPU only, by a stand-in.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_3_available

from job.errors import ConfigError, is_out_of_memory
from job.model import Model
from job.telemetry import event, warn
from job.training.own_head import trying

NAME = "sdpa_of_packed_rows"  # in transformers' table of attention functions
TOKENS = 16
MIN_CAPABILITY = (8, 0)  # of a GPU; the kernel computes in 16 bits

# What joining two rows may change in the logits, as a fraction of their mean: another kernel rounds
# otherwise. In the second row, at most so many times what it changes in the first, which no kernel
# that looks back can let see the other.
MAX_CHANGE = 1e-4
MAX_CHANGE_IN_16_BITS = 3e-2
MAX_TIMES_ROUNDING = 4
MIN_CHANGE = 1e-5

# (query, key, value, row ends twice, longest row twice) and options, as torch's varlen_attn.
Kernel = Callable[..., torch.Tensor]


def choose_attention(
    model: Model,
    base: Model,
    dtype: torch.dtype,
    kernel: Kernel | None,
    packages: Sequence[str] = (),
) -> None:
    """Collective, once: let packed rows attend by what computes the same as rows alone.

    In place of sdpa, which computes all pairs of tokens, that is the first of `packages`, names of
    transformers' attention, or `kernel`. Warn if neither does. Raise ConfigError if rows see each
    other. `model` is the base with what is around it, and `dtype` that of the computation.
    """
    usual = base.config.get_text_config()._attn_implementation
    names = list(packages)
    if kernel is not None:
        ALL_ATTENTION_FUNCTIONS.register(NAME, _attention_by(kernel))
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _mask)
        names.append(NAME)
    if usual != "sdpa" or (names and has_dropout(model)):
        names = []
    for name in names:
        if _is_set(base, name) and are_rows_apart(model, base, dtype):
            event("packed rows attend by a kernel for rows of any length", attention=name)
            return
        base.set_attn_implementation(usual)

    if not are_rows_apart(model, base, dtype):
        raise ConfigError(
            "training.packing: the rows that are packed together would see each other in this "
            "base: set packing: false"
        )
    if usual == "sdpa":
        warn("packed rows attend under a dense mask: training.packing: false may be faster")


def installed_packages() -> list[str]:
    """Return transformers' name of a package that is faster than torch's kernel, if it is there."""
    is_there = is_flash_attn_3_available() and torch.cuda.is_available()
    return ["flash_attention_3"] if is_there else []


def _is_set(base: Model, name: str) -> bool:
    """Set the attention of a base. Return False if it has no such one, or this GPU."""
    try:
        base.set_attn_implementation(name)
    except (ImportError, ValueError):
        return False
    return bool(base.config.get_text_config()._attn_implementation == name)


def torch_kernel() -> Kernel | None:
    """Return torch's kernel for rows of any length, None where it cannot run."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < MIN_CAPABILITY:
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    kernel: Kernel = varlen_attn
    return kernel


def has_dropout(model: Model) -> bool:
    """Return True if sdpa has dropout in the training of a model, such as GPT-2.

    No kernel for packed rows has: transformers calls FlashAttention 3 without it, in silence.
    Collective if the model is wrapped or sharded. Changes no random state.
    """
    shares: list[float] = []

    def note(*states: Any, dropout: float = 0.0, **named: Any) -> Any:
        shares.append(dropout)
        return sdpa_attention_forward(*states, dropout=dropout, **named)

    ids = torch.zeros(1, TOKENS, dtype=torch.long, device=next(model.parameters()).device)
    ALL_ATTENTION_FUNCTIONS["sdpa"] = note
    try:
        # Layers may be compiled for training, without the function that is here for a moment.
        with trying(model), torch.compiler.set_stance("force_eager"):
            model.train()
            model(input_ids=ids, use_cache=False)
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    return any(shares)


def are_rows_apart(model: Model, base: Model, dtype: torch.dtype) -> bool:
    """Return True if joined rows get the logits that each of them gets alone.

    `dtype` is that of the computation: what accelerate has prepared returns float32 from 16 bits,
    too. Collective if the model is wrapped or sharded. Changes no random state.
    """
    device = next(model.parameters()).device
    embeddings = base.get_input_embeddings().num_embeddings
    length = TOKENS // 2
    ids = torch.arange(TOKENS, device=device)[None] % embeddings  # (1, tokens)
    ends = torch.tensor([0, length, TOKENS], dtype=torch.int32, device=device)
    joined = {
        "position_ids": torch.arange(length, device=device).repeat(2)[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": length,
        "max_length_k": length,
        "seq_idx": torch.tensor([0, 1], dtype=torch.int32, device=device).repeat_interleave(length)[
            None
        ],
    }  # as TRL's collator
    try:
        with trying(model):
            wanted = model(input_ids=ids.view(2, length), use_cache=False).logits
            found = model(input_ids=ids, use_cache=False, **joined).logits.view_as(wanted)
    except (AttributeError, RuntimeError, IndexError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return False
    allowed = MAX_CHANGE if dtype == torch.float32 else MAX_CHANGE_IN_16_BITS
    scale = wanted.float().abs().mean()
    rounding, of_second = (found - wanted).float().abs().mean(dim=(1, 2)) / scale
    is_close = max(rounding, of_second) <= allowed
    return bool(is_close and of_second <= max(MAX_TIMES_ROUNDING * rounding, MIN_CHANGE))


def _attention_by(kernel: Kernel) -> Callable[..., tuple[torch.Tensor, None]]:
    """Return an attention function of transformers. Rows that are not joined attend by sdpa."""
    # torch 2.11 has no such switch: its kernel shares keys among heads by their numbers alone.
    has_switch = "enable_gqa" in inspect.signature(kernel).parameters

    def attend(
        module: Any,
        query: torch.Tensor,  # (batch, heads, tokens, dimensions)
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cu_seq_lens_q: torch.Tensor | None = None,
        **named: Any,
    ) -> tuple[torch.Tensor, None]:
        if attention_mask is not None or cu_seq_lens_q is None:
            output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **named)
            return output, None

        unknown = [each for each in ("softcap", "s_aux") if named.get(each) is not None]
        if unknown or named.get("dropout"):
            raise ValueError(f"the kernel has no {', '.join(unknown) or 'dropout'}")
        window = named.get("sliding_window")
        rows = [_in_16_bits(each)[0].transpose(0, 1) for each in (query, key, value)]
        longest = named["max_length_q"]
        is_shared = query.shape[1] != key.shape[1]
        output = kernel(
            *rows,  # (tokens, heads, dimensions)
            cu_seq_lens_q,
            cu_seq_lens_q,
            longest,
            longest,
            scale=named.get("scaling"),
            window_size=(window - 1 if window else -1, 0),
            **({"enable_gqa": is_shared} if has_switch else {}),
        )
        return output[None], None

    return attend


def _in_16_bits(states: torch.Tensor) -> torch.Tensor:
    """Return float32 states as autocast would for a kernel of torch's own."""
    kind = states.device.type
    if states.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return states.to(torch.get_autocast_dtype(kind))
    return states


def _mask(
    *arguments: Any,
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **named: Any,
) -> torch.Tensor | None:
    """Return no mask for packed rows, which transformers knows by their positions; else sdpa's."""
    if attention_mask is None and not allow_is_causal_skip:
        return None
    mask: torch.Tensor | None = sdpa_mask(
        *arguments,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        **named,
    )
    return mask
