"""compressed-tensors' layout `pack-quantized`, which llm-compressor and our export write.

Codes are packed along the inputs of a row, `weight_packed` [N, K * bits / 32], and zero points
along the outputs, `weight_zero_point` [N * bits / 32, groups]; `weight_scale` is [N, groups].
https://github.com/vllm-project/compressed-tensors, compressors/pack_quantized.
"""

from typing import Any

from calculator.checkpoint.layouts.layout import (
    FLOATS,
    ModuleLayout,
    Settings,
    StoredModule,
    codes_per_word,
    group_size,
    is_act_order,
)
from calculator.errors import CheckpointError
from calculator.model.formats import PACK_BITS, WeightFormat

FORMAT = "pack-quantized"
PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")


def check_settings(settings: Settings) -> None:
    """Raise CheckpointError unless weights alone are quantized, to integers packed in words."""
    groups = settings.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(each, dict) for each in groups.values()):
        raise CheckpointError("says compressed-tensors and has no config_groups")
    for name in (settings.get("format"), *(each.get("format") for each in groups.values())):
        if name not in (FORMAT, "mixed-precision", None):
            raise CheckpointError(f"is in compressed-tensors' format {name}; {FORMAT} is read")
    for each in groups.values():
        _check_group(each)
    for name in ("transform_config", "sparsity_config"):
        if _says_something(settings.get(name)):
            raise CheckpointError(f"has compressed-tensors' {name}, which is not computed")


def _check_group(group: dict[str, Any]) -> None:
    weights = group.get("weights")
    if group.get("input_activations") or group.get("output_activations"):
        raise CheckpointError(
            "quantizes activations (compressed-tensors' input_activations); only quantized weights "
            "are read"
        )
    if not isinstance(weights, dict) or weights.get("type", "int") != "int":
        raise CheckpointError(
            "has compressed-tensors' weights that are no integers; W4A16 and W8A16 are read"
        )


def _says_something(value: Any) -> bool:
    """Return whether a config of transforms or sparsity asks for any."""
    if not isinstance(value, dict):
        return bool(value)
    dense = value.get("format") in (None, "dense")
    return not dense or any(value.get(name) for name in ("config_groups", "targets"))


def read_layout(module: StoredModule, inputs: int, settings: Settings) -> ModuleLayout | None:
    """The layout of a module; None where it is not quantized. Raises CheckpointError."""
    if module.get("weight_packed") is None:
        return None
    outputs, words = module.matrix("weight_packed")
    bits = words * PACK_BITS // inputs
    if bits not in (4, 8):
        raise CheckpointError(
            f"{module.name}.weight_packed of shape {[outputs, words]} is not 4 or 8 bits wide"
        )
    groups = module.matrix("weight_scale")[1]
    size = group_size(module, "weight_scale", groups, inputs)
    per_word = codes_per_word(module, bits, outputs, inputs)
    module.check("weight_packed", ("I32",), (outputs, inputs // per_word))
    module.check("weight_scale", FLOATS, (outputs, groups))
    module.check("weight_shape", ("I32", "I64"), (2,))
    symmetric = module.get("weight_zero_point") is None
    if not symmetric:
        module.check("weight_zero_point", ("I32",), (outputs // per_word, groups))
    return ModuleLayout(
        WeightFormat(
            bits,
            size,
            zero_bits=0 if symmetric else bits,
            # Groups of inputs are stored only where they follow the activations.
            act_order=is_act_order(
                module, "weight_g_idx", inputs, groups, said=module.get("weight_g_idx") is not None
            ),
        ),
        outputs,
        PARTS,
    )
