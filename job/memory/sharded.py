"""Derive what each GPU needs if GPUs share a base by FSDP, from the step of a GPU with all of it.

Each holds an equal share of the weights in the form in which they are stored, and gathers layer
after layer. The counts of gathered layers are those of torch's implementation: in a forward pass
the layer that computes, the buffer that it came in, and the next one's; in a backward pass the
layer and the buffer of the one before it. Nothing of this was simulated or measured.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit

from job.errors import ConfigError
from job.memory.fakes import layers_of
from job.memory.step import ADAPTER, BASE, FORWARD, GRADIENTS, OPTIMIZER, Peak
from job.model import Model

GATHERED = "gathered"  # a part
LAYERS_IN_A_FORWARD_PASS = 3
LAYERS_IN_A_BACKWARD_PASS = 2
BYTES_OF_FLOAT32 = 4  # in which an adapter is stored; it is gathered in the dtype of computation


@dataclass(frozen=True)
class Stored:
    """The bytes of a base's weights as FSDP shards them: of all, and those gathered together.

    `outside` are those of no layer: embeddings, norm and head. `layer` is the largest layer.
    """

    weights: int
    outside: int
    layer: int
    layers: int
    dtype: torch.dtype


def stored_of(base: Model) -> Stored:
    """Return the sizes of a base without weights. Raise ConfigError if its layers are not found."""
    layers = layers_of(base)
    if layers is None:
        raise ConfigError("the layers that fsdp would gather are not found")
    sizes = [_bytes_of(layer) for layer in layers]
    weights = _bytes_of(base)
    return Stored(weights, weights - sum(sizes), max(sizes), len(sizes), base.config.dtype)


def _bytes_of(module: Any) -> int:
    """Return the bytes of a module's weights, packed if they will be."""
    sizes: dict[int, int] = {}  # tied weights are there once
    for each in module.modules():
        for name, weight in each.named_parameters(recurse=False):
            size = weight.numel() * weight.element_size()
            if name == "weight" and type(each) is Linear4bit:
                size = -(-each.out_features * each.in_features // 2)
            sizes[id(weight)] = size
    return sum(sizes.values())


def shared(peak: Peak, stored: Stored, gpus: int) -> Peak:
    """Return the peak of a GPU that shares the base of `peak` with others, `gpus` in all.

    Constants of quantization and buffers stay whole in each GPU. So do gradients until the last
    micro-batch of a step.
    """
    phases = {}
    for phase, parts in peak.phases.items():
        shares = {name: -(-parts.get(name, 0) // gpus) for name in (ADAPTER, OPTIMIZER, GRADIENTS)}
        whole = parts.get(BASE, 0) - stored.weights
        forward = phase == FORWARD
        layers = LAYERS_IN_A_FORWARD_PASS if forward else LAYERS_IN_A_BACKWARD_PASS
        adapter = parts.get(ADAPTER, 0) * stored.dtype.itemsize // BYTES_OF_FLOAT32
        layer = stored.layer + adapter // stored.layers
        phases[phase] = parts | {
            BASE: -(-stored.weights // gpus) + whole,
            GATHERED: stored.outside + layers * layer,
            ADAPTER: shares[ADAPTER],
            OPTIMIZER: shares[OPTIMIZER],
            GRADIENTS: parts.get(GRADIENTS, 0) + shares[GRADIENTS],
        }
    found = Peak(phases, 0)
    return replace(found, reserved=found.tensors * peak.reserved // peak.tensors)
