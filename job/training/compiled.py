"""Compile the layers of a base with torch.compile: in training, and one after the other.

A layer's many small operations become few kernels, and all layers share the same code. Rows of
changing lengths need no other: lengths are variables of the code. Evaluations and summaries stay
uncompiled, so that a verdict does not depend on it. Not yet tried on a GPU.
"""

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from job.errors import ConfigError
from job.model import Model
from job.telemetry import event

# Of C for Triton's launchers on a GPU; of C++ for what a CPU computes.
COMPILERS = {True: ("CC", ("gcc", "clang", "cc")), False: ("CXX", ("g++", "clang++"))}


def compile_layers(model: Model) -> None:
    """Let the layers of a model compute by compiled code whenever they train.

    The first step takes longer: it compiles. Raise ConfigError if the model has no layers of
    transformers, or the machine no compiler.
    """
    check_compiler(has_gpu=torch.cuda.is_available())
    layers = find_layers(model)
    for layer in layers:
        layer.forward = _while_training(layer)
    event("layers are compiled at the first step", layers=len(layers))


def find_layers(model: Model) -> list[nn.Module]:
    """Return the layers that can be compiled. Raise ConfigError without any; reads no weights."""
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            "training.compile: this base has no layers that can be compiled; remove it"
        )
    return layers


def _while_training(layer: nn.Module) -> Callable[..., Any]:
    """Return the layer's forward pass, which is compiled for use in training alone."""
    plain = layer.forward
    compiled = torch.compile(plain, dynamic=True)

    @functools.wraps(plain)
    def forward(*arguments: Any, **named: Any) -> Any:
        compute = compiled if layer.training else plain
        return compute(*arguments, **named)

    return forward


def check_compiler(has_gpu: bool) -> str:
    """Return the compiler that torch.compile calls. Raise ConfigError if there is none."""
    found = find_compiler(has_gpu)
    if found is None:
        variable, names = COMPILERS[has_gpu]
        raise ConfigError(
            f"training.compile: needs a compiler ({', '.join(names)}, or {variable}): install one, "
            "or leave training.compile out"
        )
    return found


def find_compiler(has_gpu: bool) -> str | None:
    """Return the path of the compiler of C for a GPU, of C++ for a CPU; None without one."""
    variable, names = COMPILERS[has_gpu]
    chosen = os.environ.get(variable)
    for name in [chosen] if chosen else names:
        found = shutil.which(name)
        if found:
            return found
    return None
