"""A GGUF file that llama.cpp and ollama run, from the same integers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.extras import require_packages
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.planning.disk import refuse_full_disk, refuse_unwritable
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.export.checkpoint import refuse_unquantized
from quantize.export.gguf_blocks import (
    BLOCK,
    BLOCK_TYPES,
    as_blocks,
    block_bytes,
    refuse_unfit_block,
)
from quantize.export.gguf_metadata import ARCHITECTURES, add_metadata, refuse_unfit_shape
from quantize.output.companions import usual_format
from quantize.output.layout import source_header
from quantize.output.target import hidden_directory

if TYPE_CHECKING:
    from gguf import GGUFWriter

NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",  # gate first, as llama.cpp's fused SwiGLU has it
    "mlp.down_proj": "ffn_down",
    "post_self_attn_layernorm": "post_attention_norm",
    "post_mlp_layernorm": "post_ffw_norm",
}
DENSE = {"BF16": 2, "F16": 2, "F32": 4}


def export_gguf(stored: StoredModel, output: Path, *, overwrite: bool = False) -> None:
    """Write one file. Raises OptionError, CheckpointError or TokenizerError."""
    require_packages("export to gguf", "gguf")
    from gguf import GGMLQuantizationType, GGUFWriter

    refuse_unquantized(stored)
    if output.exists() and not overwrite:
        raise OptionError(f"{output} exists already; --overwrite replaces it")
    if output.is_dir():
        raise OptionError(f"{output} is a directory, and GGUF is one file")
    planned = [
        _plan(stored, weight, weight_format) for weight, weight_format in stored.formats.items()
    ]
    refuse_unfit_shape(stored.config)
    refuse_unwritable(output.parent, f"output {output}")
    refuse_full_disk(output.parent, output, sum(each.nbytes for each in planned))
    with hidden_directory(output) as hidden:
        path = hidden / output.name
        with _closed(GGUFWriter(path, ARCHITECTURES[stored.config.model_type])) as writer:
            add_metadata(writer, stored, usual_format(stored.formats).bits)
            for each in planned:
                data = torch.empty(0, dtype=each.dtype).numpy().dtype
                kind = GGMLQuantizationType[each.kind]
                writer.add_tensor_info(each.name, each.shape, data, each.nbytes, kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for data in _data(stored):
                writer.write_tensor_data(data.numpy())
        os.replace(path, output)


@contextmanager
def _closed(writer: "GGUFWriter") -> Iterator["GGUFWriter"]:
    """Close the file also where a write fails, which closing would report once more."""
    try:
        yield writer
    except BaseException:
        with suppress(OSError):
            writer.close()
        raise
    writer.close()


@dataclass(frozen=True)
class GgufTensor:
    name: str
    kind: str
    """llama.cpp's name of the type."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    """The shape of the data as they are written: a matrix is bytes, [rows, bytes of a row]."""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _plan(stored: StoredModel, weight: Weight, weight_format: WeightFormat) -> GgufTensor:
    name = gguf_name(weight)
    if len(weight.shape) == 1:  # norms and biases: llama.cpp computes with them in float32
        return GgufTensor(name, "F32", torch.float32, weight.shape)
    outputs, inputs = weight.shape
    if weight_format.is_quantized:
        refuse_unfit_block(weight, weight_format)
        kind, width = (
            BLOCK_TYPES[weight_format.bits],
            inputs // BLOCK * block_bytes(weight_format.bits),
        )
    else:
        kind = source_header(stored, weight).dtype
        width = inputs * DENSE[kind]
    return GgufTensor(name, kind, torch.uint8, (outputs, width))


def _data(stored: StoredModel) -> Iterator[Tensor]:
    """Yield the tensors' bytes in the planned order; each is in memory while it is written."""
    for weight, weight_format in stored.formats.items():
        if weight_format.is_quantized:
            yield as_blocks(read_quantized(stored, weight))
        elif len(weight.shape) == 1:
            yield read_weight(stored, weight).float()
        else:
            yield read_weight(stored, weight).contiguous().view(torch.uint8)


def gguf_name(weight: Weight) -> str:
    """Name a weight as llama.cpp's own converter does."""
    part = weight.name.rpartition(".")[2]
    if weight.module in NAMES:
        return f"{NAMES[weight.module]}.{part}"
    inner = weight.module.removeprefix(f"model.layers.{weight.layer}.")
    return f"blk.{weight.layer}.{LAYER_NAMES[inner]}.{part}"
