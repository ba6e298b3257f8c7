"""compressed-tensors' packed integers of one module, brought to GPTQ's layout as they are read."""

from calculator.errors import CheckpointError
from glm4q.weights.module import ModuleTensors, half_scales
from glm4q.weights.packing import QuantizedWeight, pack, unpack


def read_compressed(module: ModuleTensors) -> QuantizedWeight:
    """A module of layout `pack-quantized`. Raises CheckpointError."""
    weight_format, shape = module.layout.weight_format, module["weight_shape"].tolist()
    bits, packed = weight_format.bits, module["weight_packed"]
    inputs = packed.shape[1] * 32 // bits
    if shape != [packed.shape[0], inputs]:
        raise CheckpointError(
            f"{module.name}.weight_shape is {shape}, and its codes are {[packed.shape[0], inputs]}"
        )
    zeros = None
    if not weight_format.symmetric:
        points = unpack(module["weight_zero_point"], bits)  # [N, groups]
        zeros = pack(points, bits).T.contiguous()
    return QuantizedWeight(
        bits,
        packed.T.contiguous(),  # both pack the codes of successive inputs into a word
        half_scales(module["weight_scale"].T.contiguous(), module.name),
        zeros,
        module["weight_g_idx"] if weight_format.act_order else None,
    )
