"""Write NF4 and LLM.int8() checkpoints, which transformers loads; bitsandbytes quantizes."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calculator.checkpoint.layouts.bitsandbytes_headers import STATE
from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.extras import require_packages
from calculator.model.architecture import Weight
from calculator.model.formats import LLM_INT8, NF4, NF4_BLOCK, WeightFormat, assign_formats
from glm4q import __version__
from glm4q.weights.bitsandbytes_package import bitsandbytes_functions
from glm4q.weights.checkpoint import read_weight
from quantize.output.layout import PlannedTensor, lay_out
from quantize.output.tensors import NamedTensors, copied
from quantize.parts import Listener, OutputPlan, file_stamps, write_checkpoint
from quantize.pipeline import RoundedParts

FORMATS = {"nf4": NF4, "llm-int8": LLM_INT8}
SETTINGS: dict[str, dict[str, Any]] = {
    "nf4": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": False,
    },
    "llm-int8": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": False,
        "load_in_8bit": True,
        "llm_int8_threshold": 6.0,
        "llm_int8_has_fp16_weight": False,
    },
}


def write_by_bitsandbytes(
    stored: StoredModel,
    output: Path,
    weights: str,
    *,
    overwrite: bool = False,
    listener: Listener = lambda progress: None,
) -> None:
    """Write `stored` with its linears in NF4 or LLM.int8(). Raises OptionError, CheckpointError.

    The head stays as it is, as transformers leaves it.
    """
    require_packages(f"weights {weights}", "bitsandbytes")
    if stored.is_quantized:
        raise OptionError(f"{stored.directory} is quantized already")
    formats = assign_formats(stored.config, FORMATS[weights])
    plan = OutputPlan(
        stored,
        formats,
        lay_out(stored, formats, layout=_layout),
        stored.config,
        SETTINGS[weights],
        {
            "source": file_stamps(stored),
            "weights": weights,
            "version": __version__,
            "bitsandbytes": version("bitsandbytes"),
        },
    )
    write_checkpoint(
        plan,
        output,
        lambda target: BitsandbytesParts(stored, formats),
        overwrite=overwrite,
        listener=listener,
    )


class BitsandbytesParts(RoundedParts):
    """Each linear quantized by bitsandbytes, all else copied."""

    def tensors(self, weights: list[Weight]) -> NamedTensors:
        for weight in weights:
            if self._formats[weight].is_quantized:
                yield from _quantized(self._stored, weight, self._formats[weight])
            else:
                yield from copied(self._stored, weight)


def _layout(weight: Weight, weight_format: WeightFormat) -> Iterator[PlannedTensor]:
    outputs, inputs = weight.shape
    if weight_format == LLM_INT8:
        yield PlannedTensor(f"{weight.module}.weight", "I8", weight.shape)
        yield PlannedTensor(f"{weight.module}.SCB", "F32", (outputs,))
        yield PlannedTensor(f"{weight.module}.weight_format", "U8", ())
        return
    yield PlannedTensor(f"{weight.module}.weight", "U8", (outputs * inputs // 2, 1))
    yield PlannedTensor(f"{weight.module}.weight.absmax", "F32", (outputs * inputs // NF4_BLOCK,))
    yield PlannedTensor(f"{weight.module}.weight.quant_map", "F32", (16,))
    yield PlannedTensor(f"{weight.module}.{STATE}", "U8", (len(_state(weight)),))


def _quantized(
    stored: StoredModel, weight: Weight, weight_format: WeightFormat
) -> Iterator[tuple[str, Tensor]]:
    functional = bitsandbytes_functions()
    rows = read_weight(stored, weight)
    if weight_format == LLM_INT8:
        codes, scales, _ = functional.int8_vectorwise_quant(rows.half())
        tensors = [codes, scales.float(), torch.zeros((), dtype=torch.uint8)]
    else:
        packed, state = functional.quantize_4bit(
            rows.bfloat16(), blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=False
        )
        tensors = [packed, state.absmax, state.code, torch.tensor(list(_state(weight))).byte()]
    for planned, tensor in zip(_layout(weight, weight_format), tensors, strict=True):
        yield planned.name, tensor


def _state(weight: Weight) -> bytes:
    """The JSON that bitsandbytes' QuantState stores beside the tensors."""
    state = {
        "quant_type": "nf4",
        "blocksize": NF4_BLOCK,
        "dtype": "bfloat16",
        "shape": list(weight.shape),
    }
    return json.dumps(state).encode()
