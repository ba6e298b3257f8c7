"""GPTQ v1 in `glm` names: what GPTQModel's v2 files and split halves become."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.weights.packing import QuantizedWeight, pack
from quantize.output.companions import gptq_settings
from quantize.output.layout import PlannedTensor, gptq_layout


class Gptq:
    """qweight, qzeros, scales and g_idx."""

    def planned(self, weight: Weight, weight_format: WeightFormat) -> Iterator[PlannedTensor]:
        return gptq_layout(weight, weight_format)

    def tensors(self, weight: Weight, quantized: QuantizedWeight) -> Iterator[Tensor]:
        zero_points = quantized.zero_points()
        if int(zero_points.min()) < 1:
            raise OptionError(f"{weight.module} has a zero point of 0, which GPTQ v1 cannot store")
        yield quantized.qweight
        yield pack((zero_points - 1).T, quantized.bits).T.contiguous()
        yield quantized.scales
        runs = torch.arange(quantized.inputs, dtype=torch.int32)
        group_size = quantized.inputs // quantized.scales.shape[0]
        yield runs // group_size if quantized.g_idx is None else quantized.g_idx

    def settings(self, formats: Mapping[Weight, WeightFormat]) -> dict[str, Any]:
        return gptq_settings(formats)
