"""Which program quantized a checkpoint, by its settings, and how that program lays weights out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from calculator.checkpoint import gguf_model
from calculator.checkpoint.layouts import (
    awq_headers,
    bitsandbytes_headers,
    compressed_headers,
    gptq_headers,
)
from calculator.checkpoint.layouts.layout import ModuleLayout, Settings, StoredModule
from calculator.checkpoint.weight_files import QUANTIZE_CONFIG
from calculator.dataclass import dataclass
from calculator.errors import CheckpointError, ConfigError
from calculator.json_files import read_json_object

Method = Literal["gptq", "awq", "compressed-tensors", "bitsandbytes", "gguf"]

ReadLayout = Callable[[StoredModule, int, Settings], ModuleLayout | None]
LAYOUTS: dict[Method, ReadLayout] = {
    "gptq": gptq_headers.read_layout,
    "awq": awq_headers.read_layout,
    "compressed-tensors": compressed_headers.read_layout,
    "bitsandbytes": bitsandbytes_headers.read_layout,
    "gguf": gguf_model.read_layout,
}
METHODS: tuple[Method, ...] = ("gptq", "awq", "compressed-tensors", "bitsandbytes")
"""What quantization_config may name; a GGUF file says what it is by itself."""
CONVERT = (
    "start from the unquantized model: glm4q quantize SOURCE -o OUTPUT; or convert it, "
    "with the program that made it, to one of these"
)
AUTO_ROUND_VERSIONS = {
    "auto_gptq": "gptq",
    "gptq": "gptq_v2",
    "gptqmodel": "gptq_v2",
    "": "gptq_v2",
}
"""AutoRound's name of a packing, and the version of GPTQ whose zero points it stores."""


@dataclass(frozen=True)
class Quantization:
    """The layout's name, and the settings that its reader takes."""

    method: Method
    settings: Settings

    def layout(self, module: StoredModule, inputs: int) -> ModuleLayout | None:
        """How a module is stored; None where it is not quantized. Raises CheckpointError."""
        return LAYOUTS[self.method](module, inputs, self.settings)


def read_quantization(directory: Path) -> Quantization | None:
    """The quantization of a checkpoint; None where nothing says one.

    The settings stand in config.json or in GPTQ's quantize_config.json. Raises CheckpointError or
    ConfigError where they cannot be read.
    """
    config = read_json_object(directory / "config.json")
    raw = config.get("quantization_config") or config.get("compression_config") or {}
    beside = directory / QUANTIZE_CONFIG
    if not raw and beside.is_file():
        raw = {"quant_method": "gptq", **read_json_object(beside)}
    if raw == {}:
        return None
    try:
        return _quantization(raw)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{directory} {error}") from None


def _quantization(raw: Any) -> Quantization:
    name = raw.get("quant_method") if isinstance(raw, dict) else raw
    if name in ("auto-round", "intel/auto-round") and isinstance(raw, dict):
        return _auto_round(raw)
    method = next((each for each in METHODS if each == name), None)
    if not isinstance(raw, dict) or method is None:
        raise CheckpointError(
            f"is quantized by {name!r}; {', '.join(METHODS)} and auto-round are read. {CONVERT}"
        )
    if method == "gptq":
        gptq_headers.check_settings(raw)
    elif method == "awq":
        awq_headers.check_settings(raw)
    elif method == "compressed-tensors":
        compressed_headers.check_settings(raw)
    return Quantization(method, raw)


def _auto_round(raw: dict[str, Any]) -> Quantization:
    """AutoRound packs as GPTQ or AWQ do, and says so in packing_format, "auto_round:auto_gptq"."""
    packing = str(raw.get("packing_format", raw.get("backend", "auto_round:auto_gptq")))
    name = packing.removeprefix("auto_round").removeprefix(":")
    if name in ("awq", "auto_awq"):
        return _quantization({"version": "gemm", **raw, "quant_method": "awq"})
    if name not in AUTO_ROUND_VERSIONS:
        raise CheckpointError(
            f"is packed by AutoRound as {packing!r}; auto_round:auto_gptq and auto_round:auto_awq "
            f"are read. {CONVERT}"
        )
    checkpoint_format = AUTO_ROUND_VERSIONS[name]
    return _quantization({**raw, "quant_method": "gptq", "checkpoint_format": checkpoint_format})
