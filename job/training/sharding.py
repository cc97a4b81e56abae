"""FSDP: each process holds a share of the base, and all of it passes by, layer for layer.

A trainer's settings → those of one that shards; a model, sharded or whole → what is trained of it, and back.
"""

from collections.abc import Mapping

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from trl import SFTConfig

from job.model import Model


def prepare_sharding(settings: SFTConfig, dtype: torch.dtype) -> None:
    """Make of FSDP2 what computes as DDP does; `dtype` is that of computation, and of packed 4-bit weights."""
    # accelerate would reduce gradients and round the loss in the dtype of computation too; DDP does neither.
    settings.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)
    if not torch.cuda.is_available():
        # accelerate shards between GPUs only, and between CPUs takes DDP in silence; torch shards there all the same.
        PartialState().distributed_type = DistributedType.MULTI_GPU


def check_sharded(model: Model) -> None:
    """AssertionError if accelerate took DDP in silence, or left bytes whole that FSDP cannot take for numbers.

    To be asked before the model computes: after an evaluation some weights lie whole until the next step.
    """
    assert isinstance(model, FSDPModule), "accelerate did not shard the model"
    whole = [name for name, weight in model.named_parameters() if not isinstance(weight, DTensor)]
    assert not whole, f"not sharded: {', '.join(whole[:5])}"
    packed = {weight.dtype for weight in model.parameters() if not weight.is_floating_point()}
    assert not packed, f"4-bit weights are packed as {packed}"


def trained_weights(model: Model) -> dict[str, torch.Tensor]:
    """A copy of what is trained, on the CPU; of a sharded model for the first process alone, and all must ask."""
    if isinstance(model, FSDPModule):
        gathered = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        weights: dict[str, torch.Tensor] = get_model_state_dict(model, options=gathered)
        return weights
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return {name: parameter.detach().cpu().clone() for name, parameter in trained}


@torch.no_grad()  # type: ignore[untyped-decorator]
def put_back(model: Model, weights: Mapping[str, torch.Tensor]) -> None:
    """Undo what was trained since `trained_weights`; of a sharded model with those of the first process, in all."""
    if isinstance(model, FSDPModule):
        spread = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(model, dict(weights), options=spread)
        return
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[name])
