"""AWQ's layout of 4-bit codes, version "gemm", as AutoAWQ writes it.

Codes and zero points are both packed along the outputs, `qweight` [K, N / 8] and `qzeros`
[groups, N / 8], and the eight codes of a word are not in order: see glm4q/weights/awq_tensors.py.
https://github.com/casper-hansen/AutoAWQ, awq/modules/linear/gemm.py.
"""

from calculator.checkpoint.layouts.layout import (
    FLOATS,
    ModuleLayout,
    Settings,
    StoredModule,
    codes_per_word,
    group_size,
)
from calculator.errors import CheckpointError
from calculator.model.formats import WeightFormat

BITS = 4
PARTS = ("qweight", "qzeros", "scales")


def check_settings(settings: Settings) -> None:
    """Raise CheckpointError where the settings name another version than gemm at 4 bits."""
    version, bits = settings.get("version", "gemm"), settings.get("bits", BITS)
    if str(version).lower() != "gemm" or bits != BITS:
        raise CheckpointError(
            f"is AWQ of version {version!r} and {bits!r} bits; gemm of {BITS} bits is read"
        )


def read_layout(module: StoredModule, inputs: int, settings: Settings) -> ModuleLayout | None:
    """The layout of a module; None where it is not quantized. Raises CheckpointError."""
    if module.get("qweight") is None:
        return None
    outputs = module.matrix("scales")[1]
    per_word = codes_per_word(module, BITS, outputs, inputs)
    groups = module.matrix("scales")[0]
    size = group_size(module, "scales", groups, inputs)
    module.check("qweight", ("I32",), (inputs, outputs // per_word))
    module.check("scales", FLOATS, (groups, outputs))
    module.check("qzeros", ("I32",), (groups, outputs // per_word))
    return ModuleLayout(WeightFormat(BITS, size, zero_bits=BITS), outputs, PARTS)
