"""How bitsandbytes' NF4 and LLM.int8() lie in a safetensors file, as transformers saves them.

https://huggingface.co/docs/transformers/quantization/bitsandbytes; bitsandbytes 0.50,
nn.modules.Linear4bit and Linear8bitLt.
"""

from collections.abc import Mapping

from calculator.checkpoint.headers import TensorHeader
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from calculator.model.formats import BF16, LLM_INT8, NF4, WeightFormat

NF4_DOUBLE = WeightFormat(4, NF4.group_size, scheme="nf4-double")
STATE = "weight.quant_state.bitsandbytes__nf4"
"""JSON as bytes: not held in memory as a tensor."""
NOT_HELD = (STATE, "weight_format")
DTYPES = {
    "weight": ("U8",),
    "weight.absmax": ("F32",),
    "weight.nested_absmax": ("F32",),
    "weight.quant_map": ("F32",),
    "weight.nested_quant_map": ("F32",),
    "SCB": ("F32",),
}


def stored_format(tensors: Mapping[str, TensorHeader], module: str) -> WeightFormat:
    """The format of a module's weight, by the tensors beside it. Raises CheckpointError."""
    if f"{module}.SCB" in tensors:
        return LLM_INT8
    if f"{module}.weight.absmax" not in tensors:
        return BF16
    if f"{module}.{STATE}" not in tensors:
        raise CheckpointError(f"{module}.weight has absmax but no {STATE}; of 4 bits NF4 is read")
    return NF4_DOUBLE if f"{module}.weight.nested_absmax" in tensors else NF4


def held_format(weight_format: WeightFormat) -> WeightFormat:
    """As it is held: scales that are codes themselves become float32 again as they are read."""
    return NF4 if weight_format == NF4_DOUBLE else weight_format


def check(tensors: Mapping[str, TensorHeader], weight: Weight) -> None:
    """Raise CheckpointError unless every tensor of the weight is there and of its size."""
    weight_format = stored_format(tensors, weight.module)
    for part, (count, bits) in weight_format.numbers(weight).items():
        header = tensors.get(f"{weight.module}.{part}")
        if header is None:
            raise CheckpointError(f"{weight.module}.{part} is not there")
        dtypes = _dtypes(part, weight_format)
        if header.dtype not in dtypes or header.nbytes != -(-count * bits // 8):
            raise CheckpointError(
                f"{header.name} has shape {list(header.shape)} and dtype {header.dtype}; "
                f"{count} numbers of {bits} bits are needed"
            )


def _dtypes(part: str, weight_format: WeightFormat) -> tuple[str, ...]:
    if part == "weight" and weight_format.scheme == "llm-int8":
        return ("I8",)
    if part == "weight.absmax" and weight_format.scheme == "nf4-double":
        return ("U8",)
    return DTYPES[part]
