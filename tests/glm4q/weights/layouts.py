"""Layouts that other programs give to quantized weights, written from our own GPTQ checkpoints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from glm4q.weights.checkpoint import read_quantized

State = dict[str, Tensor]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
NATIVE = {
    "model.embed_tokens": "transformer.embedding.word_embeddings",
    "model.norm": "transformer.encoder.final_layernorm",
    "lm_head": "transformer.output_layer",
    "self_attn.o_proj": "self_attention.dense",
    "mlp.gate_up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}


def change(source: Path, output: Path, tensors: State, **config: Any) -> Path:
    """A copy of a checkpoint directory with other tensors and other keys in its config."""
    shutil.copytree(source, output)
    (output / "quantize_config.json").unlink(missing_ok=True)
    path = output / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    (output / SINGLE).unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, output / SINGLE)
    return output


def settings(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found.get("quantization_config", {})


def awq(source: Path, output: Path) -> Path:
    """AutoAWQ's layout of a 4-bit checkpoint: codes in its order along the outputs."""
    stored, tensors = StoredModel.open(source), load_file(source / SINGLE)
    for weight, weight_format in stored.formats.items():
        if weight_format.is_quantized:
            quantized = read_quantized(stored, weight)
            for part in ("qweight", "qzeros", "scales", "g_idx"):
                del tensors[f"{weight.module}.{part}"]
            tensors[f"{weight.module}.qweight"] = _awq_words(quantized.codes())
            tensors[f"{weight.module}.qzeros"] = _awq_words(quantized.zero_points())
            tensors[f"{weight.module}.scales"] = quantized.scales
    quantization = {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm"}
    return change(source, output, tensors, quantization_config=quantization)


def _awq_words(codes: Tensor) -> Tensor:
    ordered = codes.long().unflatten(-1, (-1, 8))[..., AWQ_ORDER]
    return (ordered << torch.arange(0, 32, 4)).sum(-1).to(torch.int32)


def act_order(source: Path, output: Path) -> Path:
    """The inputs of every quantized weight put into its groups in another order.

    Weights of one input have one order, as where they are quantized together: q, k and v.
    """
    tensors = load_file(source / SINGLE)
    for name in tensors:
        if name.endswith("g_idx"):
            inputs = len(tensors[name])
            order = torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs))
            tensors[name] = tensors[name][order]
    return change(source, output, tensors)


def split_gate_up(source: Path, output: Path) -> Path:
    """The halves of gate_up_proj as modules of their own."""
    tensors = load_file(source / SINGLE)
    for name in [name for name in tensors if "gate_up_proj" in name]:
        tensor = tensors.pop(name)
        gate, up = _halves(name, tensor)
        tensors[name.replace("gate_up_proj", "gate_proj")] = gate.clone()
        tensors[name.replace("gate_up_proj", "up_proj")] = up.clone()
    return change(source, output, tensors)


def _halves(name: str, tensor: Tensor) -> tuple[Tensor, Tensor]:
    part = name.rpartition("_proj.")[2]
    if part in ("g_idx", "weight_g_idx", "weight.quant_map", "weight_format"):
        return tensor, tensor
    if part == "weight_shape":
        half = torch.tensor([tensor[0] // 2, tensor[1]])
        return half, half
    if "quant_state" in part:
        return tensor, tensor
    first, second = tensor.chunk(2, dim=_dimension(part))
    return first, second


def native(source: Path, output: Path) -> Path:
    """The authors' names, with q, k and v in one module."""
    tensors = load_file(source / SINGLE)
    layers = json.loads((source / "config.json").read_text())["num_hidden_layers"]
    for layer in range(layers):
        prefix = f"model.layers.{layer}.self_attn."
        parts = [name.removeprefix(f"{prefix}q_proj.") for name in tensors if f"{prefix}q_" in name]
        for part in parts:
            fused = _joined(part, [tensors.pop(f"{prefix}{name}_proj.{part}") for name in "qkv"])
            tensors[f"transformer.encoder.layers.{layer}.self_attention.query_key_value.{part}"] = (
                fused
            )
    return change(source, output, {_native_name(name): each for name, each in tensors.items()})


def _native_name(name: str) -> str:
    for ours, theirs in NATIVE.items():
        name = name.replace(f"{ours}.", f"{theirs}.")
    return name.replace("model.layers.", "transformer.encoder.layers.")


def _joined(part: str, tensors: list[Tensor]) -> Tensor:
    if part == "weight_shape":
        return torch.tensor([int(sum(each[0] for each in tensors)), int(tensors[0][1])])
    if (
        part in ("g_idx", "weight_g_idx", "weight.quant_map", "weight_format")
        or "quant_state" in part
    ):
        return tensors[0]
    return torch.cat(tensors, dim=_dimension(part))


def _dimension(part: str) -> int:
    """Along which dimension of a tensor the outputs lie."""
    return -1 if part in ("qweight", "qzeros", "scales") else 0


Change = Callable[[Path, Path], Path]
