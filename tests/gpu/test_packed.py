"""Claims about a base that FSDP loads: a GPU packs each tensor, and the host holds the result."""

import torch
from bitsandbytes.nn import Linear4bit

from job.model.packed import Packing


def test_what_a_gpu_has_packed_comes_back_to_the_host(cuda):
    layer = Linear4bit(64, 64, bias=False, quant_type="nf4", device="cpu")
    weight = torch.randn(64, 64)
    home = torch.device("cpu")
    ours = Packing(cuda).pack("weight", weight, layer, home)
    wanted = Packing().pack("weight", weight, layer, home)
    assert ours.device == ours.quant_state.absmax.device == home
    assert torch.equal(ours.data, wanted.data)
    assert torch.equal(ours.quant_state.absmax, wanted.quant_state.absmax)
