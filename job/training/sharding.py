"""FSDP: each process holds a share of the base, and all of it passes by, layer for layer.

A trainer's settings → those of one that shards; a sharded model → its adapter, whole. Knows nothing of data.
"""

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from trl import SFTConfig

from job.model import Model


def prepare_sharding(settings: SFTConfig, dtype: torch.dtype) -> None:
    """Make of FSDP2 what computes as DDP does; `dtype` is that of computation, and of packed 4-bit weights."""
    # accelerate would reduce gradients and round the loss in the dtype of computation too; DDP does neither.
    settings.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)
    if not torch.cuda.is_available():
        # accelerate shards between GPUs only, and between CPUs takes DDP in silence; torch shards there all the same.
        PartialState().distributed_type = DistributedType.MULTI_GPU


def adapter_weights(model: Model) -> dict[str, torch.Tensor]:
    """What is trained of a sharded model, whole and on the CPU, in the first process; all of them must ask for it."""
    gathered = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights: dict[str, torch.Tensor] = get_model_state_dict(model, options=gathered)
    return weights
