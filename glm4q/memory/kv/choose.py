"""Which class keeps vectors in a format."""

import torch

from calculator.model.formats import KVFormat
from glm4q.memory.kv.dense import Dense
from glm4q.memory.kv.int4 import Int4
from glm4q.memory.kv.int8 import Int8
from glm4q.memory.kv.spec import KVStore

DENSE = {16: torch.bfloat16, 32: torch.float32}


def make_store(weight_format: KVFormat, shape: tuple[int, ...], device: torch.device) -> KVStore:
    """Room for vectors of D numbers; shape: [layers, B, Hkv, room, D]."""
    if weight_format.bits in DENSE:
        return Dense(shape, DENSE[weight_format.bits], device)
    if weight_format.bits == 8:
        return Int8(shape, device)
    return Int4(shape, device, centered=weight_format.centered)
