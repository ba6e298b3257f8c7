"""compressed-tensors `pack-quantized`, vLLM's own format.

Codes lie along the rows, [N, K * bits / 32], as unsigned numbers; zero points are packed along the
outputs. https://github.com/vllm-project/compressed-tensors, compressors/pack_quantized.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.formats import PACK_BITS, WeightFormat
from glm4q.weights.packing import QuantizedWeight, pack
from quantize.output.layout import PlannedTensor


class CompressedTensors:
    """weight_packed, weight_scale, weight_shape, and weight_zero_point where there is one."""

    def planned(self, weight: Weight, weight_format: WeightFormat) -> Iterator[PlannedTensor]:
        if weight_format.act_order:
            raise OptionError(
                f"{weight.module} orders its inputs by activation (desc_act), which "
                "compressed-tensors stores otherwise: export it to gptq"
            )
        outputs, inputs = weight.shape
        groups, pack_ = weight_format.groups(inputs), PACK_BITS // weight_format.bits
        yield PlannedTensor(f"{weight.module}.weight_packed", "I32", (outputs, inputs // pack_))
        yield PlannedTensor(f"{weight.module}.weight_scale", "F16", (outputs, groups))
        yield PlannedTensor(f"{weight.module}.weight_shape", "I64", (2,))
        if not weight_format.symmetric:
            yield PlannedTensor(
                f"{weight.module}.weight_zero_point", "I32", (outputs // pack_, groups)
            )

    def tensors(self, weight: Weight, quantized: QuantizedWeight) -> Iterator[Tensor]:
        yield quantized.qweight.T.contiguous()  # both pack eight inputs of a row into a word
        yield quantized.scales.T.contiguous()
        yield torch.tensor(weight.shape)
        if quantized.qzeros is not None:
            yield pack(quantized.zero_points().T, quantized.bits)

    def settings(self, formats: Mapping[Weight, WeightFormat]) -> dict[str, Any]:
        modules: dict[WeightFormat, list[str]] = {}
        for weight, weight_format in formats.items():
            if weight_format.is_quantized:
                modules.setdefault(weight_format, []).append(weight.module)
        dense = [
            weight.module
            for weight, weight_format in formats.items()
            if weight.role in ("linear", "head") and not weight_format.is_quantized
        ]
        if not any(weight.role == "head" for weight in formats):
            dense.append("lm_head")  # tied: a Linear to the reader, no tensor of the checkpoint
        return {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {
                f"group_{number}": {
                    # One kind of linear needs no list of names.
                    "targets": ["Linear"] if len(modules) == 1 else _patterns(names),
                    "weights": _scheme(weight_format),
                    "input_activations": None,
                    "output_activations": None,
                }
                for number, (weight_format, names) in enumerate(modules.items())
            },
            "ignore": dense,
            "kv_cache_scheme": None,
        }


def _scheme(weight_format: WeightFormat) -> dict[str, Any]:
    return {
        "num_bits": weight_format.bits,
        "type": "int",
        "symmetric": weight_format.symmetric,
        "strategy": "group" if weight_format.group_size else "channel",
        "group_size": weight_format.group_size,
        "dynamic": False,
    }


def _patterns(names: list[str]) -> list[str]:
    return [f"re:^{re.escape(name)}$" for name in names]
