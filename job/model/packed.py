"""4-bit weights that the processes of a machine share: one packs them, and the others map its file.

FSDP loads a base into the memory of the host in every process. A GPU packs each tensor, and a file
that all of them map holds the result once for all. The file's name is free again as soon as every
process has mapped it: the mapping outlives the name.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from job.model import Model
from job.telemetry import event, warn

DATA = "data"  # among the tensors of a weight: the packed bytes; the others unpack them
ROOM = 1.05  # of the file: its header, what a file system takes for itself


@dataclass(frozen=True)
class Packing:
    """Where the weights of linear layers are packed, and those that another process has packed.

    A tensor is copied to `device`, packed there, and the packed bytes are copied back; without a
    device it is packed where it is. `packed` has tensors by the name of a parameter.
    """

    device: torch.device | None = None
    packed: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def pack(self, name: str, weight: Tensor, layer: Linear4bit, home: torch.device) -> Params4bit:
        """Return the 4-bit weight of a layer, on the device `home`; `name` is the parameter's.

        `weight` has (outputs, inputs).
        """
        if name in self.packed:
            unpacking = dict(self.packed[name])
            data = unpacking.pop(DATA)
            return Params4bit.from_prequantized(data, unpacking, device=home, module=layer)
        settings = layer.weight.__dict__
        packed = Params4bit(weight, requires_grad=False, **settings).to(self.device or home)
        if packed.device != home:
            packed = packed.to(home)
            packed.module = layer
        return packed

    def share(self, model: Model, file: Path) -> None:
        """Write the model's 4-bit weights, which are in the host's memory, to a file, and map it.

        A no-op without such weights, if the file is there, or if the disk has no room for it.
        """
        if file.exists():
            return
        layers = {}
        for path, module in model.named_modules():
            if isinstance(module, Linear4bit):
                layers[f"{path}.weight"] = module
        tensors = {}
        for name, layer in layers.items():
            tensors[f"{name}:{DATA}"] = layer.weight.data
            for part, tensor in layer.weight.quant_state.as_dict(packed=True).items():
                # Weights that were packed on a CPU share one table, and the format shares nothing.
                is_table = part == "quant_map"
                tensors[f"{name}:{part}"] = tensor.clone() if is_table else tensor
        size = sum(tensor.nbytes for tensor in tensors.values())
        if not tensors or not _has_room(file.parent, size):
            return

        part = file.with_suffix(".part")
        save_file(tensors, part)
        part.rename(file)
        mapped = packing_of(None, file)
        for name, layer in layers.items():
            layer.weight = mapped.pack(name, layer.weight, layer, layer.weight.device)
        event("4-bit weights are shared by the processes of this machine", bytes=size)


def packing_of(device: torch.device | None, file: Path | None) -> Packing:
    """Return a packing on `device`, with the weights of the file if it is there.

    They are mapped into memory, not read.
    """
    packed: dict[str, dict[str, Tensor]] = {}
    if file is not None and file.exists():
        with safe_open(file, "pt") as opened:
            names = opened.keys()
            for key in names:
                name, _, part = key.partition(":")
                packed.setdefault(name, {})[part] = opened.get_tensor(key)
    return Packing(device, packed)


def _has_room(folder: Path, size: int) -> bool:
    free = shutil.disk_usage(folder).free
    if size * ROOM <= free:
        return True
    warn(
        "each process packs the base by itself: the disk has no room to share it",
        folder=str(folder),
        free=free,
        needed=size,
    )
    return False
