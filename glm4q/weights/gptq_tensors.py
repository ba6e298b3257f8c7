"""GPTQ's tensors of one module, whose codes are held as they lie in the file."""

from calculator.errors import CheckpointError
from glm4q.weights.module import ModuleTensors, half_scales
from glm4q.weights.packing import QuantizedWeight, middle, pack, unpack


def read_gptq(module: ModuleTensors) -> QuantizedWeight:
    """A module in GPTQ's layout, with true zero points. Raises CheckpointError."""
    weight_format = module.layout.weight_format
    bits = weight_format.bits
    zero_points = unpack(module["qzeros"].T, bits) + module.layout.zero_point_offset
    if weight_format.symmetric and not bool((zero_points == middle(bits)).all()):
        raise CheckpointError(
            f"{module.name} is said to be symmetric, and its zero points are not all "
            f"{middle(bits)} (is checkpoint_format right: gptq or gptq_v2?)"
        )
    if int(zero_points.max()) >= 2**bits:
        raise CheckpointError(
            f"{module.name} has a zero point of {int(zero_points.max())}, which is no "
            f"{bits}-bit code"
        )
    return QuantizedWeight(
        bits,
        module["qweight"],
        half_scales(module["scales"], module.name),
        None if weight_format.symmetric else pack(zero_points, bits).T.contiguous(),
        module["g_idx"] if weight_format.act_order else None,
    )
