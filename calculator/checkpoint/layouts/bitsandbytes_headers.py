"""bitsandbytes' NF4 and LLM.int8() in a safetensors file, as transformers saves them.

https://huggingface.co/docs/transformers/quantization/bitsandbytes; bitsandbytes 0.50,
nn.modules.Linear4bit and Linear8bitLt.
"""

from math import prod

from calculator.checkpoint.layouts.layout import ModuleLayout, Settings, StoredModule
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


def stored_format(module: StoredModule) -> WeightFormat:
    """The format of a module's weight, by the tensors beside it. Raises CheckpointError."""
    if module.get("SCB") is not None:
        return LLM_INT8
    if module.get("weight.absmax") is None:
        return BF16
    if module.get(STATE) is None:
        raise CheckpointError(
            f"{module.name}.weight has absmax but no {STATE}; of the 4-bit types, NF4 is read"
        )
    return NF4_DOUBLE if module.get("weight.nested_absmax") is not None else NF4


def read_layout(module: StoredModule, inputs: int, settings: Settings) -> ModuleLayout | None:
    """The layout of a module; None where it is not quantized. Raises CheckpointError."""
    weight_format = stored_format(module)
    if not weight_format.is_quantized:
        return None
    codes = prod(module["weight"].shape) * (1 if weight_format == LLM_INT8 else 2)
    weight = Weight(f"{module.name}.weight", (codes // inputs, inputs), "linear")
    for part, (count, bits) in weight_format.numbers(weight).items():
        header, dtypes = module[part], _dtypes(part, weight_format)
        if header.dtype not in dtypes or header.nbytes != -(-count * bits // 8):
            raise CheckpointError(
                f"{header.name} has shape {list(header.shape)} and dtype {header.dtype}, where "
                f"{count} numbers of {bits} bits are needed"
            )
    # Scales that are codes themselves become float32 as they are read.
    held = NF4 if weight_format == NF4_DOUBLE else weight_format
    return ModuleLayout(held, weight.shape[0], (*weight_format.parts(weight), *NOT_HELD))


def _dtypes(part: str, weight_format: WeightFormat) -> tuple[str, ...]:
    if part == "weight" and weight_format.scheme == "llm-int8":
        return ("I8",)
    if part == "weight.absmax" and weight_format.scheme == "nf4-double":
        return ("U8",)
    return DTYPES[part]
