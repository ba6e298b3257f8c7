"""GPTQ's layout, which AutoGPTQ, GPTQModel, AutoRound and this project write.

Codes are packed along the inputs, `qweight` [K * bits / 32, N]; zero points along the outputs,
`qzeros` [groups, N * bits / 32]; `scales` are [groups, N], and `g_idx` [K] numbers each input's
group. https://github.com/AutoGPTQ/AutoGPTQ, nn_modules/qlinear/qlinear_cuda_old.py.
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
from calculator.errors import CheckpointError, ConfigError
from calculator.model.formats import PACK_BITS, WeightFormat

PARTS = ("qweight", "qzeros", "scales", "g_idx")
VERSIONS = {"gptq": 1, "gptq_v2": 0}
"""What to add to stored zero points: v1 stores them minus one, v2 as they are."""


def check_settings(settings: Settings) -> None:
    """Raise CheckpointError or ConfigError where the settings cannot be read."""
    stated = version(settings)
    if not isinstance(stated, str) or stated not in VERSIONS:
        raise CheckpointError(f"is in GPTQ format {stated!r}; {' and '.join(VERSIONS)} are read")
    for name in ("sym", "desc_act"):
        if not isinstance(settings.get(name, True), bool):
            raise ConfigError(f"{name} must be true or false, not {settings[name]!r}")


def version(settings: Settings) -> Any:
    """AutoGPTQ writes checkpoint_format; transformers 5 and GPTQModel 7 also write format."""
    return settings.get("checkpoint_format") or settings.get("format") or "gptq"


def read_layout(module: StoredModule, inputs: int, settings: Settings) -> ModuleLayout | None:
    """The layout of a module; None where it is not quantized. Raises CheckpointError."""
    qweight = module.get("qweight")
    if qweight is None:
        return None
    bits = qweight.shape[0] * PACK_BITS // inputs if len(qweight.shape) == 2 else 0
    if bits not in (4, 8):
        raise CheckpointError(
            f"{qweight.name} of shape {list(qweight.shape)} is not 4 or 8 bits wide"
        )
    outputs = qweight.shape[1]
    groups = (module["scales"].shape or (0,))[0]
    size = group_size(module, "scales", groups, inputs)
    per_word = codes_per_word(module, bits, outputs, inputs)
    module.check("qweight", ("I32",), (inputs // per_word, outputs))
    module.check("scales", FLOATS, (groups, outputs))
    module.check("qzeros", ("I32",), (groups, outputs // per_word))
    said = settings.get("desc_act") is True
    if said or module.get("g_idx") is not None:
        module.check("g_idx", ("I32",), (inputs,))
    offset = VERSIONS.get(version(settings), 1)
    return ModuleLayout(
        WeightFormat(
            bits,
            group_size=size,
            zero_bits=0 if _is_symmetric(module, bits, settings) else bits,
            act_order=is_act_order(module, "g_idx", inputs, groups, said=said),
        ),
        outputs,
        PARTS,
        offset,
    )


def _is_symmetric(module: StoredModule, bits: int, settings: Settings) -> bool:
    """Return whether every zero point is the middle code.

    Settings are believed where they speak of all modules: as weights are read, zero points are
    checked against them. `dynamic` of GPTQModel may speak of some modules only.
    """
    rules = settings.get("dynamic")
    several = isinstance(rules, dict) and any(
        isinstance(rule, dict) and "sym" in rule for rule in rules.values()
    )
    if ("sym" in settings and not several) or not module.has_data:
        return bool(settings.get("sym", True))
    words = module["qzeros"].read()
    middle = 1 << (bits - 1)
    # A word of equal 4-bit codes c is the byte c | c << 4, four times.
    return any(
        words == bytes([code | code << 4 if bits == 4 else code]) * len(words)
        for code in (middle - 1, middle)
    )
