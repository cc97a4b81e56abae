"""FSDP: each process holds a shard of the base; layers are gathered one after the other to compute.

Loads a base for it, prepares a trainer's settings, and copies trained weights out of a model and
back into it, whether it is sharded or whole.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from trl import SFTConfig

from job.config.sections import ModelSection
from job.model import Model
from job.model.fetch import Base
from job.model.load import load_base
from job.training.ranks import first_then_others


def load_to_shard(base: Base, section: ModelSection, work: Path) -> Model:
    """Collective: return a base in the host's memory, which the processes of a machine share.

    The first process of each machine quantizes it, and the others map what it wrote to `work`.
    """
    file = work / "packed.safetensors"
    is_first_here = PartialState().is_local_main_process
    if is_first_here:
        file.unlink(missing_ok=True)  # of a process that was killed
    model = first_then_others(lambda: load_base(base, section, sharded=True, shared=file))
    # The file needs no name any more once all have mapped it.
    PartialState().wait_for_everyone()
    if is_first_here:
        file.unlink(missing_ok=True)
    return model


def prepare_sharding(settings: SFTConfig, dtype: torch.dtype) -> None:
    """Configure FSDP2 to compute what DDP computes.

    `dtype` is that of the computation, and the storage type of packed 4-bit weights.
    """
    # By default accelerate would also reduce gradients and round the loss in the dtype of the
    # computation. DDP does neither.
    policy = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)
    settings.fsdp_plugin_args["mixed_precision_policy"] = policy

    if not torch.cuda.is_available():
        # accelerate shards only between GPUs, and silently uses DDP between CPUs. torch itself
        # shards there as well.
        PartialState().distributed_type = DistributedType.MULTI_GPU


def check_sharded(model: Model) -> None:
    """Raise AssertionError unless the model is sharded in floating-point weights.

    accelerate may have used DDP silently, or left packed bytes, which FSDP cannot shard, as they
    were. Call it before the model computes: after an evaluation some weights stay gathered until
    the next step.
    """
    assert isinstance(model, FSDPModule), "accelerate did not shard the model"

    whole = []
    for name, weight in model.named_parameters():
        if not isinstance(weight, DTensor):
            whole.append(name)
    assert not whole, f"not sharded: {', '.join(whole[:5])}"

    packed = {weight.dtype for weight in model.parameters() if not weight.is_floating_point()}
    assert not packed, f"4-bit weights are packed as {packed}"


def trained_weights(model: Model) -> dict[str, torch.Tensor]:
    """Return a copy of the trainable weights, by name, on the CPU.

    Collective if the model is sharded: every rank must call it, and only rank 0 gets the weights.
    """
    if isinstance(model, FSDPModule):
        gathered = StateDictOptions(
            full_state_dict=True,
            cpu_offload=True,
            ignore_frozen_params=True,
        )
        weights: dict[str, torch.Tensor] = get_model_state_dict(model, options=gathered)
        return weights

    copies = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            copies[name] = parameter.detach().cpu().clone()
    return copies


@torch.no_grad()  # type: ignore[untyped-decorator]
def put_back(model: Model, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy the result of `trained_weights` back into the model.

    Collective if the model is sharded: every rank gets the weights of rank 0.
    """
    if isinstance(model, FSDPModule):
        spread = StateDictOptions(
            full_state_dict=True,
            broadcast_from_rank0=True,
            strict=False,
        )
        set_model_state_dict(model, dict(weights), options=spread)
        return
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[name])
